//! Who talks to whom.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use weir_flow::{EndpointField, Field, Side as End, port};
use weir_server::moment;

use super::{pane, put};
use crate::top::live::app::{App, Focus};
use crate::top::live::talkers::Talker;
use crate::top::live::text::{Side, count, fit, shorten, shown};
use crate::top::live::theme::Theme;

/// Columns of numbers, the most important first, with their widths.
const NUMBERS: [Number; 5] =
    [Number::ReceivedRate, Number::SentRate, Number::Sent, Number::Received, Number::Connections];
/// A field narrower than this says little.
const LEAST: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    SentRate,
    ReceivedRate,
    Sent,
    Received,
    Connections,
}

impl Number {
    fn heading(self) -> &'static str {
        match self {
            Self::SentRate => "SENT/s",
            Self::ReceivedRate => "RECV/s",
            Self::Sent => "SENT",
            Self::Received => "RECV",
            Self::Connections => "CONNS",
        }
    }

    fn width(self) -> usize {
        if self == Self::Connections { 7 } else { 9 }
    }

    fn text(self, talker: &Talker, theme: Theme) -> String {
        let at_least = theme.at_least();
        match self {
            Self::SentRate => talker.sent_rate.text(at_least),
            Self::ReceivedRate => talker.received_rate.text(at_least),
            Self::Sent => talker.sent.text(at_least),
            Self::Received => talker.received.text(at_least),
            Self::Connections => talker.connections.map_or_else(|| "?".to_owned(), count),
        }
    }
}

pub(super) fn render(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let by = app.by();
    let more = if app.talkers_more { "+" } else { "" };
    let title = format!(
        "Talkers ({}{more}) by {}, totals of {}",
        app.talkers.len(),
        by.iter().map(Field::to_string).collect::<Vec<_>>().join(", "),
        moment::human(app.since_seconds),
    );
    let has_focus = app.focus == Focus::Talkers;
    let inside = pane(frame, area, &title, has_focus, theme);
    let (field_width, numbers) = columns(usize::from(inside.width), by.len());

    let mut heading = String::from(" ");
    for field in &by {
        heading.push(' ');
        heading.push_str(&fit(&name(*field), field_width, Side::Left, theme.ellipsis()));
    }
    for number in &numbers {
        heading.push(' ');
        heading.push_str(&fit(number.heading(), number.width(), Side::Right, theme.ellipsis()));
    }
    put(frame, inside, 0, &Line::from(Span::styled(heading, theme.heading())));

    let cursor = &app.talker_cursor;
    let rows = app.talkers.iter().enumerate().skip(cursor.first());
    for (line, (index, talker)) in rows.take(inside.height.saturating_sub(1).into()).enumerate() {
        let is_selected = index == cursor.row();
        let drilled = app.drill.as_ref();
        let is_drilled =
            drilled.is_some_and(|drill| drill.by == by && drill.values == talker.values);
        let mark = match (is_selected, is_drilled) {
            (_, true) => "*",
            (true, false) => theme.cursor(),
            (false, false) => " ",
        };
        let base = if is_selected { theme.selected(has_focus) } else { theme.plain() };
        let mut spans = vec![Span::styled(mark.to_owned(), base)];
        for (field, value) in by.iter().zip(&talker.values) {
            let text = value_text(*field, value.as_deref());
            let text = shorten(&text, field_width, theme.ellipsis());
            let text = fit(&text, field_width, Side::Left, theme.ellipsis());
            spans.push(Span::styled(format!(" {text}"), base));
        }
        for number in &numbers {
            let text = number.text(talker, theme);
            let text = fit(&text, number.width(), Side::Right, theme.ellipsis());
            let style = match number {
                Number::SentRate if !is_selected => theme.sent(),
                Number::ReceivedRate if !is_selected => theme.received(),
                _ => base,
            };
            spans.push(Span::styled(format!(" {text}"), style));
        }
        put(frame, inside, line + 1, &Line::from(spans));
    }
}

/// The width of a field, and the numbers there is room for, in their order.
fn columns(width: usize, fields: usize) -> (usize, Vec<Number>) {
    let fields = fields.max(1);
    let mut room = width.saturating_sub(1);
    let mut numbers = Vec::new();
    for number in NUMBERS {
        let needed = number.width() + 1;
        if room < needed + fields * (LEAST + 1) {
            break;
        }
        room -= needed;
        numbers.push(number);
    }
    numbers.sort_by_key(|number| *number as u8);
    ((room / fields).saturating_sub(1), numbers)
}

/// A heading: of a field that is mostly meant, just the side.
fn name(field: Field) -> String {
    match field {
        Field::Endpoint(End::Source, EndpointField::Name | EndpointField::OwnerId) => {
            "SOURCE".to_owned()
        }
        Field::Endpoint(End::Destination, EndpointField::Name | EndpointField::OwnerId) => {
            "DESTINATION".to_owned()
        }
        other => other.to_string().replace('.', " ").to_uppercase(),
    }
}

fn value_text(field: Field, value: Option<&str>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    if let Field::Endpoint(_, EndpointField::OwnerId) = field {
        return shown(&owner(value));
    }
    let name = value
        .parse()
        .ok()
        .filter(|_| field == Field::DestinationPort)
        .and_then(|number| port::names().find(|name| port::by_name(name) == Some(number)));
    name.map_or_else(|| shown(value), |name| format!("{} {name}", shown(value)))
}

/// An owner's id as people say it: `shop/frontend` of `workload/shop/Deployment/frontend`, and
/// without the word of its kind what is a host or an address.
fn owner(id: &str) -> String {
    let parts: Vec<&str> = id.splitn(4, '/').collect();
    match parts.as_slice() {
        ["workload", namespace, "Deployment", name] => format!("{namespace}/{name}"),
        ["workload", namespace, kind, name] => format!("{namespace}/{kind}/{name}"),
        ["pod" | "service" | "host" | "local" | "external" | "unknown", ..] => {
            id.split_once('/').map_or(id, |(_, rest)| rest).to_owned()
        }
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn owners_as_people_say_them() {
        for (id, said) in [
            ("workload/shop/Deployment/frontend", "shop/frontend"),
            ("workload/shop/StatefulSet/redis", "shop/StatefulSet/redis"),
            ("pod/shop/once", "shop/once"),
            ("service/shop/cart", "shop/cart"),
            ("node/n1", "node/n1"),
            ("host/alpha/nginx.service", "alpha/nginx.service"),
            ("external/203.0.113.9", "203.0.113.9"),
            ("odd", "odd"),
        ] {
            assert_eq!(owner(id), said);
        }
    }
}
