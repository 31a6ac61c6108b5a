//! The Prometheus text format, version 0.0.4: names and numbers in, lines out. No I/O.

use std::fmt::Write;

use crate::metrics::Histogram;

/// The `Content-Type` of this format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// A label of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Label {
    Number(&'static str, u64),
    /// A word of our own, which needs no escaping.
    Word(&'static str, &'static str),
}

impl Exposition {
    /// Writes a counter if `name` ends in `_total`, otherwise a gauge.
    pub fn numbers(&mut self, name: &str, help: &str, samples: Vec<(Vec<Label>, f64)>) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        self.begin(name, kind, help);
        for (labels, value) in samples {
            self.text.push_str(name);
            self.labels(&labels);
            self.line(format_args!(" {value}"));
        }
    }

    /// Writes a histogram of durations in seconds, the sum of all `parts`.
    pub fn histogram<'h>(
        &mut self,
        name: &str,
        help: &str,
        parts: impl Iterator<Item = &'h Histogram>,
    ) {
        let mut counts = [0; Histogram::BUCKETS];
        let mut bounds = [0.0; Histogram::BUCKETS];
        let mut sum_s = 0.0;
        for part in parts {
            for (place, (bound, count)) in part.buckets().enumerate() {
                bounds[place] = bound;
                counts[place] += count;
            }
            sum_s += part.sum_s();
        }
        self.begin(name, "histogram", help);
        let mut total = 0u64;
        for (place, (bound, count)) in bounds.iter().zip(counts).enumerate() {
            total += count;
            // The last bucket has no bound: it counts all that is above the others.
            match place == Histogram::BUCKETS - 1 {
                true => self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {total}")),
                false => self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {total}")),
            }
        }
        self.line(format_args!("{name}_sum {sum_s}"));
        self.line(format_args!("{name}_count {total}"));
    }

    pub fn into_text(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        debug_assert!(!help.contains(['\\', '\n']), "needs escaping");
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn labels(&mut self, labels: &[Label]) {
        for (place, label) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            // Writing to a String cannot fail.
            let _ = match label {
                Label::Number(name, number) => write!(self.text, "{name}=\"{number}\""),
                Label::Word(name, word) => {
                    debug_assert!(!word.contains(['\\', '"', '\n']), "needs escaping");
                    write!(self.text, "{name}=\"{word}\"")
                }
            };
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }

    fn line(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(what);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_help_and_type() {
        let mut out = Exposition::default();
        let labels = |worker| vec![Label::Word("kind", "x"), Label::Number("worker", worker)];
        out.numbers("a_total", "What a is.", vec![(labels(0), 3.0), (labels(1), 1e15)]);
        out.numbers("b_seconds", "What b is.", vec![(vec![], 0.000_001)]);
        assert_eq!(
            out.into_text(),
            "# HELP a_total What a is.\n# TYPE a_total counter\n\
             a_total{kind=\"x\",worker=\"0\"} 3\n\
             a_total{kind=\"x\",worker=\"1\"} 1000000000000000\n\
             # HELP b_seconds What b is.\n# TYPE b_seconds gauge\nb_seconds 0.000001\n"
        );
    }

    #[test]
    fn a_histogram_adds_up_its_parts_and_its_buckets() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.observe_us(1);
        one.observe_us(4);
        two.observe_us(3);
        two.observe_us(60_000_000);
        let mut out = Exposition::default();
        out.histogram("h_seconds", "What h is.", [&one, &two].into_iter());
        let text = out.into_text();
        for expected in [
            "h_seconds_bucket{le=\"0.000001\"} 1",
            "h_seconds_bucket{le=\"0.000002\"} 1",
            "h_seconds_bucket{le=\"0.000004\"} 3",
            "h_seconds_bucket{le=\"1.048576\"} 3",
            "h_seconds_bucket{le=\"+Inf\"} 4",
            "h_seconds_sum 60.000008",
            "h_seconds_count 4",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        }
        assert_eq!(text.lines().count(), 2 + Histogram::BUCKETS + 2);
    }
}
