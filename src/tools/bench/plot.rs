//! The report as a picture: latency distribution above, deliveries over time below.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

use super::{error::BenchError, report::Report, table::thousands};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 720;
/// What was measured stands above both charts.
const TITLE_HEIGHT: u32 = 52;

const TITLE: (&str, u32) = ("sans-serif", 20);
const CAPTION: (&str, u32) = ("sans-serif", 16);
const LABEL: (&str, u32) = ("sans-serif", 12);

const INK: RGBColor = RGBColor(31, 97, 141);
const ACCENT: RGBColor = RGBColor(192, 80, 30);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Points of the timeline drawn at most; more would be narrower than a line.
const TIMELINE_POINTS_MAX: usize = 200;

/// Percentiles that are marked, as nines and as named.
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
    let title = "Latency from publish to delivery, in ms by percentile";
    let top = points.iter().map(|(_, ms)| *ms).fold(0.001, f64::max);
    let nines = points.last().map_or(3.0, |(nines, _)| nines.max(1.0));
    let mut chart = ChartBuilder::on(area)
        .caption(title, CAPTION)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..nines, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .x_label_formatter(&|nines| percentile_name(*nines))
        .y_label_formatter(&|ms| number(*ms))
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

fn timeline(area: &Area<'_>, report: &Report) -> Drawn {
    let points = per_slot(&report.timeline);
    let seconds = points.last().map_or(1.0, |(at, _)| at.max(0.01));
    let top = points.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Deliveries per second, by seconds since the first publish", CAPTION)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..seconds, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|at| number(*at))
        .y_label_formatter(&|rate| number(*rate))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(LABEL)
        .draw()?;
    chart.draw_series(AreaSeries::new(points, 0.0, INK.mix(0.25)).border_style(INK))?;
    Ok(())
}

/// A mark on the curve, if it gets that far: where, and what is written there.
fn mark(points: &[(f64, f64)], nines: f64, name: &str) -> Option<(f64, f64, String)> {
    let (_, ms) = points.iter().find(|(at, _)| *at >= nines)?;
    Some((nines, *ms, format!("{name} {} ms", number(*ms))))
}

/// With no more digits than say something.
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

/// (seconds, deliveries per second), with gaps filled and thinned out to what can be seen.
fn per_slot(timeline: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let Some((end, _)) = timeline.last() else { return Vec::new() };
    let slots = ((end / 0.01).round() as usize + 1).clamp(1, TIMELINE_POINTS_MAX);
    let width = (end + 0.01) / slots as f64;
    let mut points: Vec<_> = (0..=slots).map(|slot| (slot as f64 * width, 0.0)).collect();
    for (at, count) in timeline {
        let slot = ((at + 0.005) / width) as usize;
        points[slot.min(slots)].1 += *count as f64 / width;
    }
    points
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
        report.timeline.clear();
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
    fn the_timeline_keeps_each_delivery() {
        let timeline = [(0.0, 5), (0.03, 7), (20.0, 8)];
        let points = per_slot(&timeline);
        let width = points[1].0;
        let sum: f64 = points.iter().map(|(_, rate)| rate * width).sum();
        assert!((sum - 20.0).abs() < 1e-6);
    }
}
