//! The Prometheus text format, version 0.0.4. Sans-IO: names and numbers in, lines out.

use std::fmt::{Display, Write};

use crate::metrics::Histogram;

/// The `Content-Type` of this format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// One metric, whose samples are being written.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// A label's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Label<'a> {
    /// A number.
    Number(u64),
    /// A word of ours: nothing in it needs to be escaped.
    Word(&'a str),
}

/// The labels of a sample.
type Labels<'a> = [(&'static str, Label<'a>)];

impl Exposition {
    /// Begins a metric that only grows. `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"));
        self.family(name, "counter", help)
    }

    /// Begins a metric that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(!name.ends_with("_total"));
        self.family(name, "gauge", help)
    }

    /// Writes a histogram of durations in seconds, all of `parts` added up.
    pub fn histogram<'h>(
        &mut self,
        name: &'static str,
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
        let text = self.family(name, "histogram", help).text;
        let mut total = 0u64;
        for (place, (bound, count)) in bounds.iter().zip(counts).enumerate() {
            total += count;
            // The last bucket has no bound: it takes all that is above the others.
            match place == Histogram::BUCKETS - 1 {
                true => line(text, format_args!("{name}_bucket{{le=\"+Inf\"}} {total}")),
                false => line(text, format_args!("{name}_bucket{{le=\"{bound}\"}} {total}")),
            }
        }
        line(text, format_args!("{name}_sum {sum_s}"));
        line(text, format_args!("{name}_count {total}"));
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        debug_assert!(!help.contains(['\\', '\n']), "needs escaping");
        let text = &mut self.text;
        line(text, format_args!("# HELP {name} {help}"));
        line(text, format_args!("# TYPE {name} {kind}"));
        Family { text, name }
    }
}

impl Family<'_> {
    /// A sample without labels; the metric has no other.
    pub fn only(&mut self, value: impl Display) {
        self.sample(&[], value);
    }

    /// A sample.
    pub fn sample(&mut self, labels: &Labels<'_>, value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (place, (name, label)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _ = match label {
                Label::Number(number) => write!(self.text, "{name}=\"{number}\""),
                Label::Word(word) => {
                    debug_assert!(!word.contains(['\\', '"', '\n']), "needs escaping");
                    write!(self.text, "{name}=\"{word}\"")
                }
            };
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        line(self.text, format_args!(" {value}"));
        self
    }
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = text.write_fmt(what);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_behind_their_help_and_type() {
        let mut out = Exposition::default();
        out.counter("a_total", "What a is.")
            .sample(&[("worker", Label::Number(0)), ("kind", Label::Word("x"))], 3)
            .sample(&[("worker", Label::Number(1)), ("kind", Label::Word("x"))], u64::MAX);
        out.gauge("b_seconds", "What b is.").only(0.000_001);
        assert_eq!(
            out.into_text(),
            "# HELP a_total What a is.\n# TYPE a_total counter\n\
             a_total{worker=\"0\",kind=\"x\"} 3\n\
             a_total{worker=\"1\",kind=\"x\"} 18446744073709551615\n\
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
