//! The registry: one record per enclave that exists, and everything the enclave owns in that record.
//!
//! CPUs, CID, name and id are held exactly as long as the record exists; there are no other accounts. A [`Lease`]
//! stands for the record: whoever owns it (the enclave's supervisor) gives everything back by dropping it, on every
//! path. Memory is held by the VMM process, whose end the supervisor waits for before it lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use api::vmm::VsockBackend;
use api::{
    ApplicationEnd, EnclaveDescription, EnclaveEvent, EnclaveFlags, EnclaveRunInfo, EnclaveState,
    EnclaveTermination, EndedEnclave, ErrorCode, EventKind, Failure, Measurements, PoolCore, RunEnclave,
    RunningImage, Selector,
};
use tokio::sync::watch;

use crate::admission::cids::CidSequence;
use crate::admission::cpus::CpuPool;
use crate::admission::{self, Grant, Holdings, Machine};
use crate::console::Console;
use crate::cpu_partition::Partition;
use crate::end::last_words;
use crate::ended::{EndedEnclaves, KeptConsole};
use crate::events::{self, Changes, Events};
use crate::ids::EnclaveId;
use crate::note::{Facts, Note};
use crate::peer::Peer;
use crate::run_directory::{self, EnclaveDirectory};

/// How many lines of an ended enclave's console are remembered.
const REMEMBERED_LINES: usize = 20;

/// All enclaves of this parent. Clones share the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// In order of creation.
    records: BTreeMap<u64, Record>,
    created: u64,
    cids: CidSequence,
    ended: EndedEnclaves,
    events: Events,
    /// Set once, at the daemon's end: no record is added any more.
    closed: bool,
}

/// Everything one enclave owns, and what is known of it.
#[derive(Debug)]
struct Record {
    facts: Facts,
    /// The enclave's part of the run directory; removed with the record.
    directory: Option<EnclaveDirectory>,
    /// The enclave's CPUs, taken from the rest of the parent, where that is possible.
    partition: Option<Partition>,
    /// Debug mode only.
    console: Option<Console>,
    process_id: u32,
    measurements: Option<Measurements>,
    state: EnclaveState,
    /// How it has ended; what is told once the record is gone.
    ended: Option<EndedEnclave>,
    /// Whether the daemon leaves it to the next one: then its record goes without an end.
    left: bool,
    /// Set to ask the supervisor to end the enclave. Closed when the record is gone: everything is given back then.
    end: watch::Sender<Option<EndRequest>>,
}

/// Who asked for the end of an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndRequest {
    /// A client, with terminate-enclave.
    Terminate,
    /// The daemon, which is shutting down.
    Shutdown,
    /// Nobody: the daemon leaves, and the enclave goes on without it. Only for an enclave that has booted.
    Leave,
}

impl EndRequest {
    /// In words, for the log and for whoever waits for the enclave.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Terminate => "it was terminated by request",
            Self::Shutdown | Self::Leave => "the daemon is shutting down",
        }
    }
}

/// Ownership of one record; dropping it removes the record and gives back what the enclave held.
#[derive(Debug)]
pub struct Lease {
    registry: Registry,
    key: u64,
    facts: Facts,
}

/// An enclave that was asked to end.
#[derive(Debug)]
pub struct Ending {
    /// What to tell the client once it is gone.
    pub termination: EnclaveTermination,
    record: watch::Receiver<Option<EndRequest>>,
}

/// What has become of a client's wish for the end of enclaves.
#[derive(Debug, Default)]
pub struct Terminating {
    /// Those that end.
    pub endings: Vec<Ending>,
    /// Those that go on, because the client may not end them.
    pub refused: Vec<EnclaveTermination>,
}

/// An enclave whose console is watched.
#[derive(Debug)]
pub struct Watched {
    /// Which one it is.
    pub facts: Facts,
    /// What it prints.
    pub console: Console,
    record: watch::Receiver<Option<EndRequest>>,
}

impl Watched {
    /// Returns when everything the enclave held is free again. Its console ends earlier, with its VMM.
    pub async fn gone(&mut self) {
        while self.record.changed().await.is_ok() {}
    }
}

impl Ending {
    /// Returns when everything the enclave held is free again.
    pub async fn gone(&mut self) {
        while self.record.changed().await.is_ok() {}
    }
}

/// The end of an enclave, or what leads to it.
#[derive(Debug)]
pub enum Awaited {
    /// It has ended.
    Ended(EndedEnclave),
    /// It runs.
    Running {
        /// Which one it is.
        facts: Facts,
        /// Closed when it is gone.
        record: watch::Receiver<Option<EndRequest>>,
    },
}

/// What an enclave has printed.
#[derive(Debug)]
pub enum Logged {
    /// It runs.
    Running(Watched),
    /// It has ended.
    Ended {
        /// Which one it was.
        run: EnclaveRunInfo,
        /// Its console.
        history: KeptConsole,
    },
}

impl Registry {
    /// Admits an enclave of the user `owner`, whose vsock is carried by `vsock`: takes memory, picks CPUs of `pool`, CID, name and id, and makes the record, in one step.
    ///
    /// # Errors
    /// E27 or E29; E39 once the daemon is shutting down.
    pub fn admit(
        &self,
        request: &RunEnclave,
        machine: &Machine,
        pool: &CpuPool,
        vsock: VsockBackend,
        owner: u32,
    ) -> Result<(Lease, Grant), Failure> {
        let mut inner = self.lock();
        if inner.closed {
            let message = "The daemon is shutting down.";
            return Err(Failure::new(ErrorCode::ProcessConnectionFailure, message));
        }
        let mut cids = std::mem::take(&mut inner.cids);
        let chosen = admission::choose(request, machine, pool, &*inner, &mut cids);
        inner.cids = cids;
        let grant = chosen?;
        let facts = Facts {
            id: grant.id.clone(),
            name: grant.name.clone(),
            cid: grant.cid,
            cpu_ids: grant.cpus.cpu_ids.clone(),
            memory_mib: grant.memory_mib(),
            debug_mode: request.debug_mode,
            vsock,
            created: milliseconds_now(),
            owner: Some(owner),
        };
        inner.events.tell(EventKind::Starting, &facts);
        let lease = self.lease(&mut inner, Record::new(facts));
        Ok((lease, grant))
    }

    /// The enclaves that have booted, in order of creation. As on AWS, one that still boots is not listed.
    pub fn describe(&self) -> Vec<EnclaveDescription> {
        let inner = self.lock();
        inner
            .visible()
            .filter_map(|(_, record)| record.describe())
            .collect()
    }

    /// The same enclaves, each with what its image says of itself. That is in the enclave's directory, not in memory.
    pub fn describe_images(&self) -> Vec<RunningImage> {
        let described: Vec<_> = {
            let inner = self.lock();
            let records = inner.visible().filter_map(|(_, record)| {
                let directory = record.directory.as_ref()?.path().to_owned();
                Some((record.describe()?, directory))
            });
            records.collect()
        };
        let images = described.into_iter().map(|(enclave, directory)| RunningImage {
            metadata: run_directory::read_image_metadata(&directory),
            enclave,
        });
        images.collect()
    }

    /// Asks for the end of the selected enclaves, as far as `client` may end them.
    ///
    /// # Errors
    /// E11 if no enclave has the id, E58 if none has the name; E39, as on AWS, if one enclave is selected and the client may not end
    /// it.
    pub fn terminate(&self, selector: &Selector, client: Peer) -> Result<Terminating, Failure> {
        let mut inner = self.lock();
        let keys = inner.select(selector)?;
        let Inner { records, events, .. } = &mut *inner;
        let mut terminating = Terminating::default();
        for key in keys {
            let Some(record) = records.get_mut(&key) else {
                continue;
            };
            if !client.may_end(record.facts.owner) {
                if *selector != Selector::All {
                    return Err(not_the_owner(&record.facts));
                }
                terminating.refused.push(record.termination(false));
                continue;
            }
            if record.state != EnclaveState::Terminating {
                events.tell(EventKind::Terminating, &record.facts);
            }
            record.state = EnclaveState::Terminating;
            terminating.endings.push(record.ask_to_end(EndRequest::Terminate));
        }
        Ok(terminating)
    }

    /// Takes in an enclave that an earlier daemon has booted, as it was noted down.
    pub fn take_over(
        &self,
        note: &Note,
        directory: EnclaveDirectory,
        partition: Option<Partition>,
        console: Option<Console>,
    ) -> Lease {
        let mut inner = self.lock();
        inner.cids.pass(note.enclave.cid);
        let record = Record {
            directory: Some(directory),
            partition,
            console,
            process_id: note.vmm.process_id,
            measurements: note.measurements.clone(),
            state: EnclaveState::Running,
            ..Record::new(note.enclave.clone())
        };
        self.lease(&mut inner, record)
    }

    fn lease(&self, inner: &mut Inner, record: Record) -> Lease {
        let key = inner.created;
        inner.created += 1;
        let facts = record.facts.clone();
        inner.records.insert(key, record);
        Lease {
            registry: self.clone(),
            key,
            facts,
        }
    }

    /// Remembers the enclaves that have ended from here on, and those that `ended` holds already.
    pub fn remember(&self, ended: EndedEnclaves) {
        self.lock().ended = ended;
    }

    /// The cores of `pool`, each with the enclave that holds it.
    pub fn cores(&self, pool: &CpuPool) -> Vec<PoolCore> {
        let inner = self.lock();
        let holder = |cpus: &[u32]| {
            let mut records = inner.records.values();
            records.find(|record| record.facts.cpu_ids.iter().any(|cpu| cpus.contains(cpu)))
        };
        let cores = pool.cores().iter().map(|core| {
            let holder = holder(&core.cpus);
            PoolCore {
                node: core.node,
                cpus: core.cpus.clone(),
                enclave_id: holder.map(|record| record.facts.id.to_string()),
                enclave_name: holder.map(|record| record.facts.name.clone()),
            }
        });
        cores.collect()
    }

    /// The enclaves that have ended lately, oldest first.
    pub fn ended(&self) -> Vec<EndedEnclave> {
        self.lock().ended.list()
    }

    /// What is to be waited for to see the end of one enclave.
    ///
    /// # Errors
    /// E11, E58 if neither a running enclave nor one that has ended lately is meant; E14 if every enclave is selected.
    pub fn await_end(&self, selector: &Selector) -> Result<Awaited, Failure> {
        only_one(selector)?;
        let inner = self.lock();
        let keys = match inner.select(selector) {
            Ok(keys) => keys,
            Err(failure) => {
                let ended = inner.ended.last(|enclave| is_meant(enclave, selector));
                return ended.map(Awaited::Ended).ok_or(failure);
            }
        };
        let record = keys.first().and_then(|key| inner.records.get(key));
        let running = record.map(|record| Awaited::Running {
            facts: record.facts.clone(),
            record: record.end.subscribe(),
        });
        running.ok_or_else(|| Failure::new(ErrorCode::SocketError, "The enclave has just gone."))
    }

    /// PCR0 of the enclave with this id, if it runs.
    pub fn pcr0(&self, enclave_id: &str) -> Option<String> {
        let inner = self.lock();
        let mut records = inner.records.values();
        let record = records.find(|record| record.facts.id.to_string() == enclave_id)?;
        Some(record.measurements.as_ref()?.pcr0.clone())
    }

    /// How the enclave with this id has ended, unless it is forgotten, or was left to the next daemon.
    pub fn ended_with_id(&self, id: &EnclaveId) -> Option<EndedEnclave> {
        let id = id.to_string();
        self.lock().ended.last(|enclave| enclave.run.enclave_id == id)
    }

    /// What one enclave has printed: its console, or what is kept of it.
    ///
    /// # Errors
    /// E11, E58 if neither a running enclave nor one that has ended lately is meant; E44 if it was not in debug mode or its
    /// console is not kept any more; E14 if every enclave is selected.
    pub fn logs(&self, selector: &Selector) -> Result<Logged, Failure> {
        let unknown = match self.console(selector) {
            Ok(watched) => return Ok(Logged::Running(watched)),
            Err(failure) if matches!(failure.code, ErrorCode::SocketError | ErrorCode::EnclaveNaming) => {
                failure
            }
            Err(failure) => return Err(failure),
        };
        let inner = self.lock();
        let Some(enclave) = inner.ended.last(|enclave| is_meant(enclave, selector)) else {
            return Err(unknown);
        };
        let history = inner.ended.kept_console(&enclave.run.enclave_id).ok_or_else(|| {
            let message = match enclave.flags {
                EnclaveFlags::None => "The enclave had no console: it was not started with --debug-mode.",
                EnclaveFlags::DebugMode => {
                    "The enclave's console is not kept any more. \
                     nitro-cli describe-enclaves --ended has its last lines."
                }
            };
            Failure::new(ErrorCode::ConsoleConnection, message)
        })?;
        Ok(Logged::Ended {
            run: enclave.run,
            history,
        })
    }

    /// The enclaves that run, as events, and what becomes of all from here on: nothing is in between.
    pub fn events(&self) -> (Vec<EnclaveEvent>, Option<Changes>) {
        let inner = self.lock();
        let present = inner
            .visible()
            .map(|(_, record)| events::event(EventKind::Present, &record.facts));
        (present.collect(), inner.events.changes())
    }

    /// Tells no more events; clients that wait for one see that there is none.
    pub fn stop_events(&self) {
        self.lock().events.stop();
    }

    /// Admits no more, and asks for the end of every enclave, also of those that still boot; or, if the daemon is to
    /// `leave`, only of the latter.
    pub fn shut_down(&self, leave: bool) -> Vec<Ending> {
        let mut inner = self.lock();
        inner.closed = true;
        let request = |record: &Record| match record.state {
            EnclaveState::Running if leave => EndRequest::Leave,
            _ => EndRequest::Shutdown,
        };
        let records = inner.records.values();
        records.map(|record| record.ask_to_end(request(record))).collect()
    }

    /// The console of one enclave.
    ///
    /// # Errors
    /// E11, E58; E44 if the enclave is not in debug mode; E14 if every enclave is selected.
    pub fn console(&self, selector: &Selector) -> Result<Watched, Failure> {
        only_one(selector)?;
        let inner = self.lock();
        let keys = inner.select(selector)?;
        let record = keys.first().and_then(|key| inner.records.get(key));
        let watched = record.and_then(|record| {
            Some(Watched {
                facts: record.facts.clone(),
                console: record.console.clone()?,
                record: record.end.subscribe(),
            })
        });
        watched.ok_or_else(|| {
            Failure::new(
                ErrorCode::ConsoleConnection,
                "The enclave has no console: it was not started with --debug-mode.",
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Puts what was made for the enclave into the record.
    pub fn attach(
        &self,
        directory: EnclaveDirectory,
        partition: Option<Partition>,
        console: Option<Console>,
    ) {
        self.update(|record| {
            record.directory = Some(directory);
            record.partition = partition;
            record.console = console;
        });
    }

    /// Does something in the enclave's directory.
    pub(crate) fn with_directory<R>(&self, look: impl FnOnce(&EnclaveDirectory) -> R) -> Option<R> {
        self.update(|record| record.directory.as_ref().map(look))
            .flatten()
    }

    /// What is fixed of the enclave.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Notes the enclave's VMM process.
    pub fn set_process(&self, process_id: u32) {
        self.update(|record| record.process_id = process_id);
    }

    /// Notes what the VMM measured.
    pub fn set_measurements(&self, measurements: Measurements) {
        self.update(|record| record.measurements = Some(measurements));
    }

    /// Makes the enclave visible as running; what to tell the client that started it.
    pub fn set_running(&self) -> Option<EnclaveRunInfo> {
        let mut inner = self.registry.lock();
        let Inner { records, events, .. } = &mut *inner;
        let record = records.get_mut(&self.key)?;
        record.state = EnclaveState::Running;
        events.tell(EventKind::Running, &record.facts);
        Some(record.run_info())
    }

    /// The enclave has ended for this `reason`: it is remembered, and all that it held is given back.
    pub async fn end(self, reason: &str, application: Option<ApplicationEnd>, console: Option<&Console>) {
        let words = match console {
            Some(console) => last_words(console).await,
            None => String::new(),
        };
        let mut inner = self.registry.lock();
        let Inner { records, ended, .. } = &mut *inner;
        if let Some(record) = records.get_mut(&self.key) {
            let enclave = record.describe_end(reason, application, &words);
            if let (Some(_), Some(directory)) = (console, &record.directory) {
                ended.keep_console(&enclave.run.enclave_id, directory);
            }
            ended.add(enclave.clone());
            record.ended = Some(enclave);
        }
    }

    /// Kills every process of the enclave's control group. Whether there was one; `None` without a control group.
    pub fn kill_group(&self) -> Option<bool> {
        self.update(|record| record.partition.as_ref().map(Partition::kill))
            .flatten()
    }

    /// Whether the kernel has killed the VMM for want of memory. Not known without a control group.
    pub fn was_killed_for_memory(&self) -> bool {
        let known = self.update(|record| {
            record
                .partition
                .as_ref()
                .is_some_and(Partition::was_killed_for_memory)
        });
        known.unwrap_or_default()
    }

    /// Lets go of an enclave that goes on: the record is gone, and the directory stays for the next daemon.
    pub fn leave(self) {
        self.update(|record| record.left = true);
        if let Some(directory) = self.update(|record| record.directory.take()).flatten() {
            directory.leave();
        }
        if let Some(partition) = self.update(|record| record.partition.take()).flatten() {
            partition.leave();
        }
    }

    /// Changes to somebody's wish for the enclave's end.
    pub fn end_requests(&self) -> watch::Receiver<Option<EndRequest>> {
        self.update(|record| record.end.subscribe())
            .unwrap_or_else(|| watch::Sender::new(None).subscribe())
    }

    /// The record exists as long as the lease does.
    fn update<R>(&self, change: impl FnOnce(&mut Record) -> R) -> Option<R> {
        self.registry.lock().records.get_mut(&self.key).map(change)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // First what lies outside of this process, without the lock; then the record. So nothing is left of an enclave that
        // is not listed, and no other is given CPUs that are not free yet.
        let outside = self.update(|record| (record.partition.take(), record.directory.take()));
        drop(outside);
        let mut inner = self.registry.lock();
        // Dropping it closes `end`, which tells those who wait for this one.
        if let Some(record) = inner.records.remove(&self.key).filter(|record| !record.left) {
            inner.events.tell_end(&record.facts, record.ended.as_ref());
        }
    }
}

impl Inner {
    /// The enclaves that clients see.
    fn visible(&self) -> impl Iterator<Item = (u64, &Record)> {
        let records = self.records.iter().map(|(key, record)| (*key, record));
        records.filter(|(_, record)| record.state != EnclaveState::Empty)
    }

    fn select(&self, selector: &Selector) -> Result<Vec<u64>, Failure> {
        let keys = |chosen: &dyn Fn(&Record) -> bool| -> Vec<u64> {
            let matching = self.visible().filter(|(_, record)| chosen(record));
            matching.map(|(key, _)| key).collect()
        };
        let (found, code, message) = match selector {
            Selector::All => return Ok(keys(&|_| true)),
            Selector::Id(id) => (
                keys(&|record| record.facts.id.is_meant_by(id)),
                ErrorCode::SocketError,
                format!(
                    "No enclave has the id {:?}. nitro-cli describe-enclaves lists those that run.",
                    quotable(id)
                ),
            ),
            Selector::Name(name) => (
                keys(&|record| record.facts.name == *name),
                ErrorCode::EnclaveNaming,
                format!(
                    "No enclave has the name {:?}. nitro-cli describe-enclaves lists those that run.",
                    quotable(name)
                ),
            ),
        };
        match found.len() {
            1 => Ok(found),
            0 => Err(Failure::new(code, message)),
            _ => Err(Failure::new(code, "More than one enclave is meant; give the id.")),
        }
    }
}

impl Holdings for Inner {
    fn cpus(&self) -> BTreeSet<u32> {
        self.records
            .values()
            .flat_map(|record| record.facts.cpu_ids.iter().copied())
            .collect()
    }

    fn has_cid(&self, cid: u32) -> bool {
        self.records.values().any(|record| record.facts.cid == cid)
    }

    fn has_name(&self, name: &str) -> bool {
        self.records.values().any(|record| record.facts.name == name)
    }

    fn has_id(&self, id: &EnclaveId) -> bool {
        self.records.values().any(|record| record.facts.id == *id)
    }
}

impl Record {
    /// Of an enclave that was just admitted.
    fn new(facts: Facts) -> Self {
        Self {
            facts,
            directory: None,
            partition: None,
            console: None,
            process_id: 0,
            measurements: None,
            state: EnclaveState::Empty,
            ended: None,
            left: false,
            end: watch::Sender::new(None),
        }
    }

    fn run_info(&self) -> EnclaveRunInfo {
        EnclaveRunInfo {
            enclave_name: self.facts.name.clone(),
            enclave_id: self.facts.id.to_string(),
            process_id: self.process_id,
            enclave_cid: u64::from(self.facts.cid),
            number_of_cpus: u64::try_from(self.facts.cpu_ids.len()).unwrap_or(u64::MAX),
            cpu_ids: self.facts.cpu_ids.clone(),
            memory_mib: self.facts.memory_mib,
        }
    }

    fn describe(&self) -> Option<EnclaveDescription> {
        Some(EnclaveDescription {
            run: self.run_info(),
            state: self.state,
            flags: self.flags(),
            measurements: self.measurements.clone()?,
            vsock: Some(self.facts.vsock),
        })
    }

    fn flags(&self) -> EnclaveFlags {
        if self.facts.debug_mode {
            EnclaveFlags::DebugMode
        } else {
            EnclaveFlags::None
        }
    }

    fn describe_end(&self, reason: &str, application: Option<ApplicationEnd>, console: &str) -> EndedEnclave {
        let lines: Vec<&str> = console.lines().collect();
        let last = lines.get(lines.len().saturating_sub(REMEMBERED_LINES)..);
        EndedEnclave {
            run: self.run_info(),
            flags: self.flags(),
            reason: reason.to_owned(),
            exit_code: application.map(ApplicationEnd::exit_code),
            started_at: self.facts.created,
            ended_at: milliseconds_now(),
            console: last.unwrap_or_default().iter().map(ToString::to_string).collect(),
        }
    }

    /// An earlier request stays: who asked first is the reason.
    fn ask_to_end(&self, request: EndRequest) -> Ending {
        self.end.send_if_modified(|asked| {
            let first = asked.is_none();
            asked.get_or_insert(request);
            first
        });
        Ending {
            termination: self.termination(true),
            record: self.end.subscribe(),
        }
    }

    fn termination(&self, terminated: bool) -> EnclaveTermination {
        EnclaveTermination {
            enclave_name: self.facts.name.clone(),
            enclave_id: self.facts.id.to_string(),
            terminated,
        }
    }
}

/// The failure of a client that may not end an enclave.
fn not_the_owner(facts: &Facts) -> Failure {
    let owner = facts.owner.map_or_else(
        || "by an unknown user".to_owned(),
        |owner| format!("by the user with number {owner}"),
    );
    let message = format!(
        "No permission to terminate {}: it was started {owner}, and only that user and root may end it.",
        facts.id
    );
    Failure::new(ErrorCode::ProcessConnectionFailure, message)
}

/// For requests about one enclave.
fn only_one(selector: &Selector) -> Result<(), Failure> {
    if *selector == Selector::All {
        let message = "This is about one enclave; give its id or name.";
        return Err(Failure::new(ErrorCode::InvalidCommand, message));
    }
    Ok(())
}

fn is_meant(enclave: &EndedEnclave, selector: &Selector) -> bool {
    match selector {
        Selector::Id(id) => {
            let parsed: Result<EnclaveId, _> = enclave.run.enclave_id.parse();
            parsed.is_ok_and(|parsed| parsed.is_meant_by(id))
        }
        Selector::Name(name) => enclave.run.enclave_name == *name,
        Selector::All => false,
    }
}

pub(crate) fn milliseconds_now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// As much of a user's text as an error repeats.
fn quotable(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
