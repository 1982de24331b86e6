//! The columns of the connections.

use weir_server::answer::{ConnectionRow, End};

use super::text::{self, Side};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Protocol,
    Source,
    Destination,
    Service,
    State,
    PortName,
    SentRate,
    ReceivedRate,
    Sent,
    Received,
    Age,
    Class,
    Zones,
}

impl Column {
    /// All of them, in the order they stand.
    pub(super) const ALL: [Self; 13] = [
        Self::Protocol,
        Self::Source,
        Self::Destination,
        Self::Service,
        Self::Class,
        Self::Zones,
        Self::State,
        Self::PortName,
        Self::SentRate,
        Self::ReceivedRate,
        Self::Sent,
        Self::Received,
        Self::Age,
    ];

    /// All of them, the most important first.
    const BY_IMPORTANCE: [Self; 13] = [
        Self::Destination,
        Self::Source,
        Self::ReceivedRate,
        Self::SentRate,
        Self::Class,
        Self::State,
        Self::PortName,
        Self::Protocol,
        Self::Zones,
        Self::Sent,
        Self::Received,
        Self::Age,
        Self::Service,
    ];

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Protocol => "PROTO",
            Self::Source => "SOURCE",
            Self::Destination => "DESTINATION",
            Self::Service => "SERVICE",
            Self::State => "STATE",
            Self::PortName => "PORT",
            Self::SentRate => "SENT/s",
            Self::ReceivedRate => "RECV/s",
            Self::Sent => "SENT",
            Self::Received => "RECV",
            Self::Age => "AGE",
            Self::Class => "CLASS",
            Self::Zones => "ZONES",
        }
    }

    /// What a list of columns calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Service => "service (the address dialled)",
            Self::State => "state",
            Self::PortName => "name of the port",
            Self::SentRate => "sent per second",
            Self::ReceivedRate => "received per second",
            Self::Sent => "sent in total",
            Self::Received => "received in total",
            Self::Age => "age",
            Self::Class => "class",
            Self::Zones => "zones of both ends",
        }
    }

    /// Less is no use. Names of pods are long, and told apart by their ends.
    fn least(self, is_cluster: bool) -> usize {
        match self {
            Self::Source | Self::Destination if is_cluster => 24,
            Self::Source | Self::Destination => 14,
            Self::Service => 18,
            Self::State => 11,
            Self::PortName | Self::SentRate | Self::ReceivedRate | Self::Sent | Self::Received => 8,
            Self::Protocol => 5,
            Self::Age => 6,
            Self::Class => 12,
            Self::Zones => 15,
        }
    }

    /// More than this is no use.
    fn most(self) -> usize {
        match self {
            Self::Source | Self::Destination => 60,
            Self::Service => 24,
            Self::Zones => 34,
            other => other.least(false),
        }
    }

    pub(super) fn side(self) -> Side {
        match self {
            Self::SentRate | Self::ReceivedRate | Self::Sent | Self::Received | Self::Age => {
                Side::Right
            }
            _ => Side::Left,
        }
    }

    /// Which are shown unasked: on one machine class and zones say little.
    pub(super) fn usual(is_cluster: bool) -> [bool; Self::ALL.len()] {
        Self::ALL.map(|column| is_cluster || !matches!(column, Self::Class | Self::Zones))
    }

    /// What stands in it, exactly `width` columns. Of a name that is too long the port stays, which
    /// tells connections apart, and the namespace goes first.
    pub(super) fn cell(
        self,
        row: &ConnectionRow,
        names: bool,
        width: usize,
        ellipsis: &str,
    ) -> String {
        let text = self.text(row, names);
        let port = match self {
            Self::Source => row.source.port,
            Self::Destination => row.destination.port,
            _ => None,
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        match text.strip_suffix(&port) {
            Some(name) if text::width(&text) > width && width > port.len() + 1 => {
                let room = width - port.len();
                let name = text::shorten(name, room, ellipsis);
                text::fit(&name, room, Side::Left, ellipsis) + &port
            }
            _ => text::fit(&text, width, self.side(), ellipsis),
        }
    }

    /// What stands in it.
    pub(super) fn text(self, row: &ConnectionRow, names: bool) -> String {
        let optional =
            |text: &Option<String>| text.as_deref().map_or_else(String::new, text::shown);
        match self {
            Self::Protocol => text::shown(&row.protocol),
            Self::Source => end(&row.source, names),
            Self::Destination => end(&row.destination, names),
            Self::Service if names && row.service_name.is_some() => optional(&row.service_name),
            Self::Service => optional(&row.service),
            Self::Class => text::shown(&row.class),
            Self::Zones => zones(row),
            Self::State => row.state.as_deref().map_or_else(|| "?".to_owned(), text::shown),
            Self::PortName => optional(&row.port_name),
            Self::SentRate => text::rate(row.bytes_sent_per_second),
            Self::ReceivedRate => text::rate(row.bytes_received_per_second),
            Self::Sent => text::total(row.bytes_sent),
            Self::Received => text::total(row.bytes_received),
            Self::Age => text::length(row.age_seconds),
        }
    }
}

/// The zones of both ends, one where they are the same; empty where neither is known.
fn zones(row: &ConnectionRow) -> String {
    let [source, destination] = [&row.source.zone, &row.destination.zone];
    if source == destination {
        return source.as_deref().map_or_else(String::new, text::shown);
    }
    let zone = |zone: &Option<String>| zone.as_deref().map_or_else(|| "?".to_owned(), text::shown);
    format!("{} > {}", zone(source), zone(destination))
}

/// An end's name; what is in a namespace with it, since names are told apart by it.
pub(super) fn name(end: &End) -> String {
    match (&end.namespace, end.kind.as_str()) {
        (Some(namespace), "pod" | "service") => {
            format!("{}/{}", text::shown(namespace), text::shown(&end.name))
        }
        _ => text::shown(&end.name),
    }
}

/// An end with its port, by name or by address.
pub(super) fn end(end: &End, names: bool) -> String {
    let (name, is_address) = if names && !end.name.is_empty() {
        (name(end), end.name == end.address)
    } else {
        (text::shown(&end.address), true)
    };
    match end.port {
        Some(port) if is_address && name.contains(':') => format!("[{name}]:{port}"),
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

/// The columns that fit, in the order they stand, with their widths. One column is between them.
pub(super) fn fit(
    wanted: &[bool; Column::ALL.len()],
    is_cluster: bool,
    width: usize,
) -> Vec<(Column, usize)> {
    let is_wanted = |column: Column| {
        Column::ALL.iter().position(|other| *other == column).is_some_and(|index| wanted[index])
    };
    let mut chosen = Vec::new();
    let mut used = 0;
    for column in Column::BY_IMPORTANCE.into_iter().filter(|column| is_wanted(*column)) {
        let gap = usize::from(!chosen.is_empty());
        if used + gap + column.least(is_cluster) > width {
            break;
        }
        used += gap + column.least(is_cluster);
        chosen.push(column);
    }
    let mut columns: Vec<(Column, usize)> = Column::ALL
        .into_iter()
        .filter(|column| chosen.contains(column))
        .map(|column| (column, column.least(is_cluster)))
        .collect();
    share(&mut columns, width - used);
    if columns.is_empty() && width > 0 {
        columns.extend(Column::ALL.into_iter().find(|c| is_wanted(*c)).map(|c| (c, width)));
    }
    columns
}

/// Gives what is left to those that can use it, evenly.
fn share(columns: &mut [(Column, usize)], mut left: usize) {
    while left > 0 {
        let mut is_given = false;
        for (column, width) in columns.iter_mut() {
            if *width < column.most() && left > 0 {
                *width += 1;
                left -= 1;
                is_given = true;
            }
        }
        if !is_given {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_columns_go_first() {
        let shown = |is_cluster, width| -> Vec<String> {
            let columns = fit(&Column::usual(is_cluster), is_cluster, width);
            columns.iter().map(|(column, width)| format!("{column:?} {width}")).collect()
        };
        assert_eq!(shown(false, 10), ["Protocol 10"]);
        assert_eq!(shown(false, 20), ["Destination 20"]);
        assert_eq!(
            shown(false, 78),
            [
                "Protocol 5",
                "Source 16",
                "Destination 16",
                "State 11",
                "PortName 8",
                "SentRate 8",
                "ReceivedRate 8"
            ]
        );
        assert_eq!(shown(false, 140).len(), 11);
        assert_eq!(
            shown(true, 96),
            ["Source 26", "Destination 26", "Class 12", "State 11", "SentRate 8", "ReceivedRate 8"]
        );
        assert_eq!(shown(true, 180).len(), 13);
        assert!(fit(&[false; 13], false, 80).is_empty());
        assert!(fit(&[true; 13], true, 0).is_empty());
        for width in 0..300 {
            let columns = fit(&[true; 13], width % 2 == 0, width);
            let used: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(used <= width + 1, "{width}");
        }
    }

    #[test]
    fn ends_by_name_and_by_address() {
        let mut it = End {
            name: "nginx".into(),
            address: "fd00::1".into(),
            port: Some(80),
            ..End::default()
        };
        assert_eq!(end(&it, true), "nginx:80");
        assert_eq!(end(&it, false), "[fd00::1]:80");
        it.name = "fd00::1".into();
        assert_eq!(end(&it, true), "[fd00::1]:80");
        it.port = None;
        assert_eq!(end(&it, true), "fd00::1");
    }
}
