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
