//! One line a figure: `NAME VALUE UNIT target OP X ok|short`.

use std::io::Write as _;
use std::time::Instant;

pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) fn report(name: &str, value: f64, unit: &str, target: &Target) {
    let (sign, bound, met) = match *target {
        Target::AtLeast(bound) => (">=", bound, value >= bound),
        Target::AtMost(bound) => ("<=", bound, value <= bound),
    };
    let verdict = if met { "ok" } else { "short" };
    line(&format!("{name} {value:.2} {unit} target {sign} {bound} {verdict}"));
}

/// What other figures are measured against.
pub(crate) fn floor(name: &str, value: f64, unit: &str) {
    line(&format!("# {name} {value:.2} {unit}"));
}

fn line(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").expect("somebody reads the figures");
}

#[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
pub(crate) fn precise(number: u64) -> f64 {
    number as f64
}

/// The shortest time that each part took in any round, all parts together: what the work costs
/// where nothing else takes the processor away.
pub(crate) struct Shortest(Vec<f64>);

impl Shortest {
    pub(crate) fn of(parts: usize) -> Self {
        Self(vec![f64::INFINITY; parts])
    }

    pub(crate) fn time<T>(&mut self, part: usize, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        let taken = started.elapsed().as_secs_f64();
        self.0[part] = self.0[part].min(taken);
        result
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.iter().sum()
    }
}
