//! The table: what was measured in this run, figures of other machine monitors, and the aims.

use std::fmt::Write as _;

use bench::Samples;

use crate::measure::{Figures, Plan};

/// One row of figures that were not measured here, as they were written down.
struct Quoted {
    name: &'static str,
    first_run: [&'static str; 2],
    user_space: [&'static str; 2],
    private: &'static str,
    system_calls: &'static str,
}

/// Measured with the same method on other parents, before this program existed: 256 MiB, one vCPU, an enclave kernel 6.12,
/// an initramfs of one line; parent kernel 6.12, for the last one 6.1. The first three do not measure what they boot, so
/// there is no hashing to subtract.
const REFERENCE: [Quoted; 4] = [
    quoted("Firecracker, static", ["6.7"; 2], ["65.7"; 2], "3.0", "213"),
    quoted("cloud-hypervisor", ["14"; 2], ["73"; 2], "6.2", "376"),
    quoted("QEMU microvm", ["47"; 2], ["107"; 2], "34", "649"),
    quoted("QEMU nitro-enclave", ["265", ""], ["458", ""], "27", "777"),
];

const fn quoted(
    name: &'static str,
    first_run: [&'static str; 2],
    user_space: [&'static str; 2],
    private: &'static str,
    system_calls: &'static str,
) -> Quoted {
    Quoted {
        name,
        first_run,
        user_space,
        private,
        system_calls,
    }
}

/// What a median should not exceed, in the order of the columns. Whole times: a quarter of QEMU's nitro-enclave machine.
const AIMS: [f64; COLUMNS] = [265.0 / 4.0, 3.4, 458.0 / 4.0, 56.0, 2.5, 120.0];

/// Columns of figures.
const COLUMNS: usize = 6;

const HEADS: [[&str; COLUMNS]; 2] = [
    [
        "exec → KVM_RUN, ms",
        "",
        "exec → user space, ms",
        "",
        "private",
        "system",
    ],
    ["whole", "less SHA-384", "whole", "less SHA-384", "MiB", "calls"],
];

/// How each column is called where it stands alone.
const NAMES: [&str; COLUMNS] = [
    "exec → KVM_RUN",
    "exec → KVM_RUN less SHA-384",
    "exec → user space",
    "exec → user space less SHA-384",
    "private memory",
    "system calls",
];

/// The whole report.
pub(crate) fn text(plan: &Plan, results: &[Figures]) -> String {
    let mut table = Table::default();
    table.row("", HEADS[0].map(str::to_owned));
    table.row("", HEADS[1].map(str::to_owned));
    table.heading(&format!(
        "measured in this run: median of {} (min–max)",
        plan.runs
    ));
    for figures in results {
        table.row(&format!("enclave-vmm, {}", figures.kernel), cells(figures));
    }
    table.heading("reference, measured elsewhere with the same method: not measured in this run");
    for quoted in &REFERENCE {
        let [whole, rest] = quoted.first_run;
        let [late_whole, late_rest] = quoted.user_space;
        let cells = [
            whole,
            rest,
            late_whole,
            late_rest,
            quoted.private,
            quoted.system_calls,
        ];
        table.row(quoted.name, cells.map(str::to_owned));
    }
    table.heading("aims");
    table.row("", AIMS.map(number));

    let mut text = format!(
        "\nStart of an enclave with {} MiB and one vCPU; private is the VMM's memory without the guest's, \
         system calls are those before the first KVM_RUN\n\n{}\n",
        plan.memory >> 20,
        table.text()
    );
    for figures in results {
        let _ = write!(text, "{}", details(figures));
    }
    let user_space = |figures: &&Figures| figures.user_space.median();
    let fastest = results
        .iter()
        .min_by(|one, other| user_space(one).total_cmp(&user_space(other)));
    if let Some(fastest) = fastest.filter(|_| results.len() > 1) {
        let _ = writeln!(text, "first in user space, with hashing: {}", fastest.kernel);
    }
    text
}

/// Medians in the order of the columns.
fn medians(figures: &Figures) -> [f64; COLUMNS] {
    let hash = figures.hash.median();
    let (first_run, user_space) = (figures.first_run.median(), figures.user_space.median());
    [
        first_run,
        first_run - hash,
        user_space,
        user_space - hash,
        figures.private.median(),
        figures.system_calls.median(),
    ]
}

fn cells(figures: &Figures) -> [String; COLUMNS] {
    let [_, first_run_rest, _, user_space_rest, ..] = medians(figures);
    [
        spread(&figures.first_run),
        number(first_run_rest),
        spread(&figures.user_space),
        number(user_space_rest),
        spread(&figures.private),
        spread(&figures.system_calls),
    ]
}

/// Below the table: the hash that was subtracted, what missed its aim, and the system calls.
fn details(figures: &Figures) -> String {
    let missed: Vec<String> = NAMES
        .iter()
        .zip(medians(figures).into_iter().zip(AIMS))
        .filter(|(_, (median, aim))| median > aim)
        .map(|(name, (median, aim))| format!("{name}, {} instead of {}", number(median), number(aim)))
        .collect();
    let missed = if missed.is_empty() {
        "none".to_owned()
    } else {
        missed.join("; ")
    };
    let calls: Vec<String> = figures
        .calls
        .by_frequency()
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    format!(
        "{}\n  SHA-384 alone     {} ms over an EIF of {} bytes\n  aims missed       {missed}\n  system calls      {}\n",
        figures.kernel,
        spread(&figures.hash),
        figures.eif_size,
        calls.join(", "),
    )
}

fn spread(samples: &Samples) -> String {
    format!(
        "{} ({}–{})",
        number(samples.median()),
        number(samples.min()),
        number(samples.max())
    )
}

/// Two decimals, unless they are zero.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.strip_suffix(".00").map_or(text.clone(), str::to_owned)
}

/// Lines of cells, and headings between them.
#[derive(Default)]
struct Table(Vec<Line>);

enum Line {
    Heading(String),
    Row(String, [String; COLUMNS]),
}

impl Table {
    fn heading(&mut self, text: &str) {
        self.0.push(Line::Heading(text.to_owned()));
    }

    fn row(&mut self, name: &str, cells: [String; COLUMNS]) {
        self.0.push(Line::Row(name.to_owned(), cells));
    }

    /// Cells of a column begin at the same place.
    fn text(&self) -> String {
        let mut widths = [0; COLUMNS];
        let mut first = 0;
        for line in &self.0 {
            if let Line::Row(name, cells) = line {
                first = first.max(name.chars().count());
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        let mut text = String::new();
        for line in &self.0 {
            match line {
                Line::Heading(heading) => text.push_str(heading),
                Line::Row(name, cells) => {
                    let mut row = format!("  {name:first$}");
                    for (width, cell) in widths.iter().zip(cells) {
                        let _ = write!(row, "  {cell:width$}");
                    }
                    text.push_str(row.trim_end());
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SystemCalls;

    fn samples<const N: usize>(values: [f64; N]) -> Samples {
        Samples::new(values).unwrap()
    }

    fn figures(first_run: [f64; 3]) -> Figures {
        Figures {
            kernel: "bzImage".into(),
            eif_size: 4_220_000,
            first_run: samples(first_run),
            user_space: samples([95.0, 96.0, 99.0]),
            hash: samples([40.0, 41.0, 42.0]),
            private: samples([2.4]),
            system_calls: samples([119.0]),
            calls: SystemCalls::default(),
        }
    }

    fn report(first_run: [f64; 3]) -> String {
        let plan = Plan {
            vmm: "/vmm".into(),
            runs: 3,
            memory: 256 << 20,
            kernels: Vec::new(),
        };
        text(&plan, &[figures(first_run)])
    }

    /// The line that begins with `name`.
    fn line<'a>(report: &'a str, name: &str) -> &'a str {
        report
            .lines()
            .find(|line| line.trim_start().starts_with(name))
            .unwrap()
    }

    #[test]
    fn the_hash_is_subtracted_from_both_times() {
        let report = report([44.0, 43.5, 45.25]);
        let cells: Vec<_> = line(&report, "enclave-vmm, bzImage")
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "enclave-vmm, bzImage",
                "44 (43.50–45.25)",
                "3",
                "96 (95–99)",
                "55",
                "2.40 (2.40–2.40)",
                "119 (119–119)"
            ]
        );
    }

    #[test]
    fn an_aim_is_missed_by_what_exceeds_it() {
        assert!(line(&report([44.0; 3]), "aims missed").ends_with("none"));
        let missed = report([45.0; 3]);
        assert!(
            line(&missed, "aims missed").ends_with(" exec → KVM_RUN less SHA-384, 4 instead of 3.40"),
            "{missed}"
        );
    }

    #[test]
    fn figures_of_others_stand_under_a_heading_that_says_so() {
        let report = report([44.0; 3]);
        let order = [
            "measured in this run",
            "enclave-vmm",
            "not measured in this run",
            "Firecracker",
            "aims",
        ];
        let places: Vec<_> = order.iter().map(|text| report.find(text).unwrap()).collect();
        assert!(places.is_sorted(), "{report}");
        assert!(line(&report, "QEMU nitro-enclave").contains("265"));
    }

    #[test]
    fn the_kernel_that_is_first_in_user_space_is_named() {
        let plan = Plan {
            vmm: "/vmm".into(),
            runs: 1,
            memory: 256 << 20,
            kernels: Vec::new(),
        };
        let slow = Figures {
            kernel: "vmlinux".into(),
            user_space: samples([500.0]),
            ..figures([1.0; 3])
        };
        let report = text(&plan, &[slow, figures([400.0; 3])]);
        assert!(
            report.ends_with("first in user space, with hashing: bzImage\n"),
            "{report}"
        );
    }

    #[test]
    fn columns_are_aligned() {
        let report = report([44.0; 3]);
        let column = |name, cell: &str| {
            let line = line(&report, name);
            line[..line.find(cell).unwrap()].chars().count()
        };
        assert_eq!(column("enclave-vmm", "96"), column("Firecracker", "65.7"));
        assert_eq!(column("enclave-vmm", "119"), column("QEMU microvm", "649"));
    }
}
