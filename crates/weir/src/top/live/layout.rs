//! Where everything is.

use ratatui::layout::{Constraint, Layout, Rect};

/// Smaller than this there is room for the connections only.
const LEAST: (u16, u16) = (40, 12);
/// Smaller than this there is room for a hint only.
const NOTHING: (u16, u16) = (20, 3);
/// From this width on the nodes have a pane of their own, and details stand beside.
const WIDE: u16 = 100;
/// From this width on details are shown unasked.
const ROOMY: u16 = 140;

/// What decides where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) banners: usize,
    /// Lines below everything: status, filter line, message.
    pub(super) bottom: u16,
    pub(super) nodes_focused: bool,
    /// `None`: where there is room.
    pub(super) details: Option<bool>,
}

/// Where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Areas {
    /// A hint, and nothing else.
    Hint(Rect),
    /// The busiest connections, and nothing else.
    Compact(Rect),
    /// All of it.
    Full(Full),
}

/// The panes of the whole screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) title: Rect,
    pub(super) banners: Rect,
    pub(super) nodes: Option<Rect>,
    pub(super) talkers: Option<Rect>,
    pub(super) connections: Rect,
    pub(super) details: Option<Rect>,
    pub(super) bottom: Rect,
}

/// Divides the screen.
pub(super) fn areas(screen: Rect, needs: Needs) -> Areas {
    if screen.width < NOTHING.0 || screen.height < NOTHING.1 {
        return Areas::Hint(screen);
    }
    if screen.width < LEAST.0 || screen.height < LEAST.1 {
        return Areas::Compact(screen);
    }
    let most_banners = usize::from(if screen.height < 20 { 1_u16 } else { 4 });
    let banners = u16::try_from(needs.banners.min(most_banners)).unwrap_or(1);
    let [title, banners, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(banners),
        Constraint::Min(5),
        Constraint::Length(needs.bottom),
    ])
    .areas(screen);

    let has_nodes = needs.nodes_focused || screen.width >= WIDE;
    let beside_nodes = |area: Rect| {
        if !has_nodes {
            return (None, area);
        }
        let width = Constraint::Max(30.min(screen.width / 5).max(18));
        let [nodes, rest] = Layout::horizontal([width, Constraint::Min(20)]).areas(area);
        (Some(nodes), rest)
    };
    // The connections, with the most columns, have the whole width where there is height enough.
    let (nodes, talkers, lower) = if body.height < 10 {
        let (nodes, lower) = beside_nodes(body);
        (nodes, None, lower)
    } else {
        let [upper, lower] =
            Layout::vertical([Constraint::Percentage(35), Constraint::Percentage(65)]).areas(body);
        let (nodes, talkers) = beside_nodes(upper);
        (nodes, Some(talkers), lower)
    };
    let (connections, details) = split_details(lower, screen.width, needs.details);
    Areas::Full(Full { title, banners, nodes, talkers, connections, details, bottom })
}

fn split_details(area: Rect, width: u16, wanted: Option<bool>) -> (Rect, Option<Rect>) {
    if !wanted.unwrap_or(width >= ROOMY) {
        return (area, None);
    }
    if width >= WIDE {
        let [connections, details] =
            Layout::horizontal([Constraint::Min(40), Constraint::Length((area.width / 4).max(34))])
                .areas(area);
        return (connections, Some(details));
    }
    let [connections, details] =
        Layout::vertical([Constraint::Min(4), Constraint::Percentage(50)]).areas(area);
    (connections, (details.height > 2).then_some(details))
}

/// Rows of a pane: its frame and its headings take the rest.
pub(super) fn page(area: Rect, headings: u16) -> usize {
    usize::from(area.height.saturating_sub(2 + headings))
}

/// Where a list over the rest of the screen stands.
pub(super) fn popup(screen: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(screen.width), height.min(screen.height));
    Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    }
}

impl Areas {
    /// No larger than the terminal is now: it may have shrunk since.
    pub(super) fn within(self, screen: Rect) -> Self {
        let cut = |area: Rect| area.intersection(screen);
        match self {
            Self::Hint(area) => Self::Hint(cut(area)),
            Self::Compact(area) => Self::Compact(cut(area)),
            Self::Full(full) => Self::Full(Full {
                title: cut(full.title),
                banners: cut(full.banners),
                nodes: full.nodes.map(cut),
                talkers: full.talkers.map(cut),
                connections: cut(full.connections),
                details: full.details.map(cut),
                bottom: cut(full.bottom),
            }),
        }
    }
}
