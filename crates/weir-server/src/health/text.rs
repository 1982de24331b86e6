//! Metrics as text.

use std::fmt::Write as _;

/// Bytes of a label's value; the rest is cut.
const VALUE_BYTES_MAX: usize = 253;

/// Metrics as they are written for Prometheus.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Sums that only grow. The name ends in `_total`.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, u64)>,
    ) {
        self.head(name, help, "counter");
        for (value, count) in values {
            self.text.push_str(name);
            self.label(label, value.as_ref());
            writeln!(self.text, " {count}").expect("a string has room");
        }
    }

    /// A sum that only grows. The name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.head(name, help, "counter");
        writeln!(self.text, "{name} {count}").expect("a string has room");
    }

    /// A value that goes up and down; nothing where it is not known.
    pub fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        self.head(name, help, "gauge");
        writeln!(self.text, "{name} {value}").expect("a string has room");
    }

    /// Values that go up and down, by a label.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, f64)>,
    ) {
        self.head(name, help, "gauge");
        for (value, number) in values {
            self.text.push_str(name);
            self.label(label, value.as_ref());
            writeln!(self.text, " {number}").expect("a string has room");
        }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("a string has room");
    }

    fn label(&mut self, label: &str, value: &str) {
        write!(self.text, "{{{label}=\"").expect("a string has room");
        for c in value[..value.floor_char_boundary(VALUE_BYTES_MAX)].chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
        self.text.push_str("\"}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_stay_inside_their_quotes() {
        let mut text = Exposition::default();
        text.counters("a_total", "Some.", "node", [("n\"1\"\n\\", 1), ("n2", 2)]);
        text.gauge("b", "Unknown.", None);
        text.gauge("c", "Known.", Some(0.5));
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total{node=\"n\\\"1\\\"\\n\\\\\"} 1\n\
                        a_total{node=\"n2\"} 2\n# HELP c Known.\n# TYPE c gauge\nc 0.5\n";
        assert_eq!(text.finish(), expected);
    }
}
