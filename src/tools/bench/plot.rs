//! The report as a picture: latency distribution above, deliveries over time below.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

use super::{error::BenchError, rates, report::Report};
use crate::tools::numbers::grouped as thousands;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 720;
/// The headline above both charts says what was measured.
const TITLE_HEIGHT: u32 = 52;

const TITLE: (&str, u32) = ("sans-serif", 20);
const CAPTION: (&str, u32) = ("sans-serif", 16);
const LABEL: (&str, u32) = ("sans-serif", 12);

const INK: RGBColor = RGBColor(31, 97, 141);
const ACCENT: RGBColor = RGBColor(192, 80, 30);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Approximate number of labels on an axis.
const TICKS: usize = 6;

/// Percentiles that are marked: as nines, and by name.
const MARKED: [(f64, &str); 3] = [(0.301, "p50"), (2.0, "p99"), (3.0, "p99.9")];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes the plot as SVG.
pub(super) fn draw(path: &Path, report: &Report) -> Result<(), BenchError> {
    let mut svg = String::new();
    render(&mut svg, report)
        .map_err(|error| BenchError::Plot(path.to_owned(), error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| BenchError::Write(path.to_owned(), error))
}

fn render(svg: &mut String, report: &Report) -> Drawn {
    let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, charts) = root.split_vertically(TITLE_HEIGHT);
    title.margin(14, 0, 0, 0).titled(&headline(report), TITLE)?;
    let (upper, lower) = charts.split_vertically((HEIGHT - TITLE_HEIGHT) / 2);
    latency(&upper, report)?;
    timeline(&lower, report)?;
    root.present()?;
    Ok(())
}

/// What was measured, in a line.
fn headline(report: &Report) -> String {
    let run = &report.run;
    let connections = thousands(u64::from(run.connections));
    let transport = format!("{:?}", run.transport).to_uppercase();
    let deliveries = report.publish.as_ref().map_or(0, |publish| publish.deliveries);
    let (size, deliveries) = (run.size_bytes, thousands(deliveries));
    format!("{connections} {transport} connections, {size}-byte events, {deliveries} deliveries")
}

/// Latency at each percentile, from the median to the worst, on a scale of nines.
fn latency(area: &Area<'_>, report: &Report) -> Drawn {
    let points = percentiles(&report.latency_steps);
    let title = "Latency from publish to delivery";
    let top = points.iter().map(|(_, ms)| *ms).fold(0.001, f64::max);
    let nines = points.last().map_or(3.0, |(nines, _)| nines.max(1.0));
    let mut chart = ChartBuilder::on(area)
        .caption(title, CAPTION)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(92)
        .build_cartesian_2d(0.0..nines, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("percentile of deliveries")
        .y_desc("latency (ms)")
        .x_labels(8)
        .y_labels(TICKS)
        .x_label_formatter(&|nines| percentile_name(*nines))
        .y_label_formatter(&|ms| tick(*ms, top))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(LABEL)
        .draw()?;
    let marks: Vec<_> = MARKED.iter().filter_map(|&(at, name)| mark(&points, at, name)).collect();
    chart.draw_series(LineSeries::new(points, INK.stroke_width(2)))?;
    chart.draw_series(marks.into_iter().map(|(nines, ms, text)| {
        let dot = Circle::new((0, 0), 4, ACCENT.filled());
        EmptyElement::at((nines, ms)) + dot + Text::new(text, (8, 6), LABEL)
    }))?;
    Ok(())
}

/// Each window of time as a step.
fn timeline(area: &Area<'_>, report: &Report) -> Drawn {
    let (end_s, top) = (end_s(&report.rates), rates::peak(&report.rates).max(1.0));
    // What is over in a moment is shown in milliseconds.
    let (unit, per_unit_s) = if end_s < 1.0 { ("ms", 1e-3) } else { ("s", 1.0) };
    let end = end_s / per_unit_s;
    let steps = report.rates.iter().flat_map(|window| {
        let (from_s, rate) = (window.from_s, window.deliveries_per_s);
        [from_s, from_s + window.width_s].map(|at_s| (at_s / per_unit_s, rate))
    });
    let caption = format!("Deliveries per second, at most {}", number(top));
    let mut chart = ChartBuilder::on(area)
        .caption(caption, CAPTION)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(92)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc(format!("time since the first publish ({unit})"))
        .y_desc("deliveries per second")
        .x_labels(TICKS)
        .y_labels(TICKS)
        .x_label_formatter(&|at| tick(*at, end))
        .y_label_formatter(&|rate| tick(*rate, top))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(LABEL)
        .draw()?;
    chart.draw_series(AreaSeries::new(steps, 0.0, INK.mix(0.25)).border_style(INK))?;
    Ok(())
}

fn end_s(rates: &[rates::Window]) -> f64 {
    rates.last().map_or(1.0, |last| last.from_s + last.width_s)
}

/// A label of an axis that ends at `end`, with enough digits to distinguish its neighbours.
fn tick(value: f64, end: f64) -> String {
    let step = end / TICKS as f64;
    let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
    if decimals == 0 { thousands(value.round() as u64) } else { format!("{value:.decimals$}") }
}

/// A mark on the curve, if it reaches that far: where, and its text.
fn mark(points: &[(f64, f64)], nines: f64, name: &str) -> Option<(f64, f64, String)> {
    let (_, ms) = points.iter().find(|(at, _)| *at >= nines)?;
    Some((nines, *ms, format!("{name} {} ms", number(*ms))))
}

/// With no more digits than mean something.
fn number(value: f64) -> String {
    match value {
        _ if value >= 1000.0 => thousands(value.round() as u64),
        _ if value >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// (nines, milliseconds): 1 nine is the 90th percentile, 2 the 99th, and so on.
fn percentiles(steps: &[(u64, u64)]) -> Vec<(f64, f64)> {
    let all: u64 = steps.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let point = |(ns, count): &(u64, u64)| {
        below += count;
        // The worst of n has no percentile of its own; half a delivery is left above it.
        let above = (all as f64 - below as f64).max(0.5) / all as f64;
        (-above.log10(), *ns as f64 / 1e6)
    };
    steps.iter().map(point).collect()
}

fn percentile_name(nines: f64) -> String {
    let percent = 100.0 - 100.0 / 10f64.powf(nines);
    // Between the nines a number would be all digits and no meaning.
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    let text = format!("{percent:.6}");
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::{super::table::tests::full, *};

    #[test]
    fn the_plot_is_svg_with_text_and_both_charts() {
        let mut svg = String::new();
        render(&mut svg, &full()).unwrap();
        assert!(svg.starts_with("<svg"));
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("Latency from publish to delivery"));
        assert!(svg.contains("Deliveries per second"));
        assert!(svg.contains(" connections, ") && svg.contains("p50 "));
        assert!(svg.contains("<polyline"));
    }

    #[test]
    fn an_empty_report_can_be_drawn() {
        let mut report = full();
        report.latency_steps.clear();
        report.rates.clear();
        render(&mut String::new(), &report).unwrap();
    }

    #[test]
    fn percentiles_rise_and_are_named() {
        let points = percentiles(&[(1_000_000, 90), (2_000_000, 9), (5_000_000, 1)]);
        assert!((points[0].0 - 1.0).abs() < 1e-9 && (points[1].0 - 2.0).abs() < 1e-9);
        assert_eq!(percentile_name(3.0), "p99.9");
        assert_eq!(percentile_name(0.0), "p0");
    }

    #[test]
    fn axes_have_units_and_labels_that_differ() {
        let mut svg = String::new();
        render(&mut svg, &full()).unwrap();
        for text in ["latency (ms)", "time since the first publish (ms)", "at most 15,000,000"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        for end in [0.004, 0.07, 0.9, 5.0, 60.0, 183_288.0] {
            let labels: Vec<String> =
                (0..=TICKS).map(|n| tick(end * n as f64 / 6.0, end)).collect();
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
        }
    }
}
