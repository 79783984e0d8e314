//! Rounds: in each, every VMM starts a guest and every figure is measured once, so that what changes on the host in the
//! meantime meets all of them.

use std::{fmt::Write as _, io};

use bench::Samples;

use bench::system;

use crate::{
    error::Error,
    events::{Counts, Events},
    machine::{Carrier, Host, Machine},
    measure::{Amounts, Figure, Watch},
};

/// All that was measured of one VMM.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) carrier: Carrier,
    /// In the order of [`Figure::ALL`]; none where nothing could be measured.
    pub(crate) figures: Vec<Option<Samples>>,
    /// What did not answer in time, or failed.
    pub(crate) failures: Vec<String>,
}

/// Values as they come, one list for each figure.
struct Collected {
    carrier: Carrier,
    values: Vec<Vec<f64>>,
    failures: Vec<String>,
}

/// Measures `rounds` times.
pub(crate) fn run(host: &Host, carriers: &[Carrier], rounds: u32) -> Result<Vec<Results>, Error> {
    let mut collected: Vec<_> = carriers.iter().map(|carrier| Collected::new(*carrier)).collect();
    for round in 1..=rounds {
        for collected in &mut collected {
            eprint!("round {round}/{rounds}, {:15} ", collected.carrier.name());
            collected.measure(host, round)?;
            eprintln!();
        }
    }
    Ok(collected.into_iter().map(Collected::results).collect())
}

impl Collected {
    fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            values: vec![Vec::new(); Figure::ALL.len()],
            failures: Vec::new(),
        }
    }

    /// One round. What fails ends it: a guest that hung once is of no use.
    fn measure(&mut self, host: &Host, round: u32) -> Result<(), Error> {
        let mut machine = match host.start(self.carrier)? {
            Ok(machine) => machine,
            Err(error) => {
                self.fail(round, "start", &error);
                if self.carrier == Carrier::Raw {
                    eprint!("{}", host.qemu_log());
                }
                return Ok(());
            }
        };
        for (figure, values) in Figure::ALL.into_iter().zip(&mut self.values) {
            match figure.measure(&mut machine) {
                Ok(value) => {
                    eprint!(" {value:.0}");
                    values.push(value);
                }
                Err(error) => {
                    self.fail(round, &format!("{figure:?}"), &error);
                    break;
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, round: u32, what: &str, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer within the limit".to_owned(),
            _ => error.to_string(),
        };
        let text = format!("round {round}, {what}: {reason}");
        eprint!(" [{text}]");
        self.failures.push(text);
    }

    fn results(self) -> Results {
        Results {
            carrier: self.carrier,
            figures: self.values.into_iter().map(Samples::new).collect(),
            failures: self.failures,
        }
    }
}

/// Of each VMM, what the parent does for one operation of each kind: a list of events, as text.
pub(crate) fn events(host: &Host, carriers: &[Carrier]) -> Result<String, Error> {
    let events = Events::of_this_machine();
    let mut text = String::new();
    for carrier in carriers {
        let mut machine = host.start(*carrier)?.map_err(system("start the guest"))?;
        for figure in Figure::ALL {
            eprint!("\n{}, {figure:?}", carrier.name());
            let counts = recorded(&events, &mut machine, figure);
            let counts = counts.map_err(system("record events"))?;
            let counts = counts.text(figure.operations(Amounts::RECORDED));
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{}, {figure:?}, for each:\n{counts}", carrier.name());
        }
    }
    eprintln!();
    Ok(text)
}

fn recorded(events: &Events, machine: &mut Machine, figure: Figure) -> io::Result<Counts> {
    figure.watched(machine, Amounts::RECORDED, Watch::Events(events))?;
    events.records().map(|records| Counts::of(&records))
}
