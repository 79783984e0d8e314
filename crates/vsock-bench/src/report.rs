//! The table: medians with their spread, then each as a ratio to raw vhost-vsock, then what failed.

use std::fmt::Write as _;

use bench::Samples;

use crate::{machine::Carrier, rounds::Results};

/// The columns, in the order of [`Figure::ALL`](crate::measure::Figure::ALL).
const HEADS: [&str; 7] = [
    "trip µs",
    "in 16 MiB/s",
    "in 64 MiB/s",
    "out 16 MiB/s",
    "out 64 MiB/s",
    "conn in /s",
    "conn out /s",
];

/// The whole report.
pub(crate) fn text(results: &[Results]) -> String {
    let mut text = String::from("\n");
    line(&mut text, "median (min–max)", &HEADS.map(str::to_owned));
    for results in results {
        let cells: Vec<_> = results
            .figures
            .iter()
            .map(|samples| cell(samples.as_ref()))
            .collect();
        line(&mut text, results.carrier.name(), &cells);
    }
    if let Some(raw) = results.iter().find(|results| results.carrier == Carrier::Raw) {
        text.push_str("ratio to raw vhost-vsock; of the trip, less is better\n");
        for results in results.iter().filter(|results| results.carrier != Carrier::Raw) {
            let pairs = results.figures.iter().zip(&raw.figures);
            let cells: Vec<_> = pairs
                .map(|(ours, raw)| ratio(ours.as_ref(), raw.as_ref()))
                .collect();
            line(&mut text, results.carrier.name(), &cells);
        }
    }
    for results in results {
        for failure in &results.failures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "failed: {}: {failure}", results.carrier.name());
        }
    }
    text
}

fn line(text: &mut String, name: &str, cells: &[String]) {
    let mut line = format!("{name:<17}");
    for cell in cells {
        let _ = write!(line, " {cell:<17}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn cell(samples: Option<&Samples>) -> String {
    samples.map_or("-".to_owned(), |samples| {
        let (median, min, max) = (samples.median(), samples.min(), samples.max());
        format!("{median:.0} ({min:.0}–{max:.0})")
    })
}

fn ratio(ours: Option<&Samples>, raw: Option<&Samples>) -> String {
    ours.zip(raw).map_or("-".to_owned(), |(ours, raw)| {
        format!("{:.2}", ours.median() / raw.median())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figure;

    fn results(carrier: Carrier, values: &[f64]) -> Results {
        let samples = || Samples::new(values.iter().copied());
        Results {
            carrier,
            figures: Figure::ALL.iter().map(|_| samples()).collect(),
            failures: Vec::new(),
        }
    }

    fn cells<'a>(report: &'a str, name: &str) -> Vec<Vec<&'a str>> {
        let lines = report.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| {
                line.split("  ")
                    .filter(|cell| !cell.is_empty())
                    .map(str::trim)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn each_figure_stands_beside_its_ratio_to_the_raw_one() {
        let report = text(&[
            results(Carrier::Kernel, &[90.0, 150.0, 120.0]),
            results(Carrier::Raw, &[100.0]),
        ]);
        let [medians, ratios] = &cells(&report, "kernel backend")[..] else {
            panic!("{report}");
        };
        assert_eq!(medians[1], "120 (90–150)");
        assert_eq!(medians.len(), 1 + Figure::ALL.len());
        assert_eq!(ratios[1], "1.20");
    }

    #[test]
    fn what_could_not_be_measured_has_a_place_and_a_reason() {
        let mut hung = results(Carrier::Unix, &[]);
        hung.failures
            .push("round 1, Trip: no answer within the limit".into());
        let report = text(&[hung, results(Carrier::Raw, &[100.0])]);
        assert!(report.contains("Unix backend      -"), "{report}");
        assert!(report.ends_with("failed: Unix backend: round 1, Trip: no answer within the limit\n"));
    }
}
