//! All measurements of one run of this program, one enclave after the other.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use api::vmm::VsockBackend;
use bench::{Launch, Samples, Vmm};

use bench::at;

use crate::{
    error::Error,
    guest::{self, Image},
    smaps,
    trace::{SystemCalls, Timeline},
    tracefs::Tracefs,
};

/// How long a start may take, in virtual time.
const LIMIT: Duration = Duration::from_secs(20);

/// How long this program stays out of the way of a start that is timed. A guest that waits lets virtual time jump, so a
/// longer sleep costs nothing.
const QUIET: Duration = Duration::from_secs(2);

/// Nobody asks for it.
const GUEST_CID: u32 = 16;

/// How often a start that is not timed is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The VMM, by an absolute path.
    pub(crate) vmm: PathBuf,
    /// How often each figure is measured; at least once.
    pub(crate) runs: u32,
    /// Guest memory in bytes.
    pub(crate) memory: u64,
    /// Kernels.
    pub(crate) kernels: Vec<PathBuf>,
}

/// Figures of one kernel.
#[derive(Debug)]
pub(crate) struct Figures {
    /// File name of the kernel.
    pub(crate) kernel: String,
    /// Bytes of the EIF.
    pub(crate) eif_size: u64,
    /// Milliseconds from exec to the first entry into the guest.
    pub(crate) first_run: Samples,
    /// Milliseconds from exec to the byte of process 1.
    pub(crate) user_space: Samples,
    /// Milliseconds of SHA-384 over the EIF.
    pub(crate) hash: Samples,
    /// MiB of private memory.
    pub(crate) private: Samples,
    /// Number of system calls before the first `KVM_RUN`.
    pub(crate) system_calls: Samples,
    /// Which ones they were, in the last run.
    pub(crate) calls: SystemCalls,
}

/// Measures all kernels of `plan`.
pub(crate) fn run(plan: &Plan) -> Result<Vec<Figures>, Error> {
    let directory = env::temp_dir().join("boot-bench");
    fs::create_dir_all(&directory).map_err(at("create", &directory))?;
    silence_console()?;
    let bench = Bench {
        plan,
        directory: &directory,
        tracefs: Tracefs::of_this_machine(),
    };
    plan.kernels.iter().map(|kernel| bench.measure(kernel)).collect()
}

/// Keeps the parent's kernel from writing messages to its serial port meanwhile: KVM reports registers that it does not
/// know, at a limited rate, so some starts would pay for that and others not.
fn silence_console() -> Result<(), Error> {
    let path = Path::new("/proc/sys/kernel/printk");
    Ok(fs::write(path, "1").map_err(at("write", path))?)
}

/// One start that was timed.
#[derive(Debug, Clone, Copy)]
struct Start {
    first_run: Duration,
    user_space: Duration,
    private: u64,
}

struct Bench<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    tracefs: Tracefs,
}

impl Bench<'_> {
    fn measure(&self, kernel: &Path) -> Result<Figures, Error> {
        let image = guest::build(kernel, self.directory)?;
        let starts = self.repeat(&image, "timed starts", || self.start(&image))?;
        let calls = self.repeat(&image, "traced starts", || self.system_calls(&image))?;
        let hashes = self.repeat(&image, "hashes", || hash(&image))?;
        let samples = |values: Vec<f64>| Samples::new(values).ok_or(Error::NoRuns);
        Ok(Figures {
            eif_size: image.size,
            first_run: samples(starts.iter().map(|start| millis(start.first_run)).collect())?,
            user_space: samples(starts.iter().map(|start| millis(start.user_space)).collect())?,
            hash: samples(hashes.into_iter().map(millis).collect())?,
            private: samples(starts.iter().map(|start| mebibytes(start.private)).collect())?,
            system_calls: samples(calls.iter().map(|calls| f64::from(calls.total())).collect())?,
            calls: calls.into_iter().last().unwrap_or_default(),
            kernel: image.kernel,
        })
    }

    fn repeat<T>(
        &self,
        image: &Image,
        what: &str,
        once: impl Fn() -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        eprint!("{}: {} {what} ", image.kernel, self.plan.runs);
        let results = (0..self.plan.runs).map(|_| {
            eprint!(".");
            once()
        });
        let results = results.collect();
        eprintln!();
        results
    }

    fn launch(&self, image: &Image) -> Result<Vmm, Error> {
        let vmm = Vmm::launch(Launch {
            program: &self.plan.vmm,
            eif: &image.path,
            memory: self.plan.memory,
            directory: self.directory,
            guest_cid: GUEST_CID,
            vsock: VsockBackend::Unix,
            cpu: 0,
        })?;
        Ok(vmm)
    }

    /// Times a start and looks at the VMM's memory at its end.
    fn start(&self, image: &Image) -> Result<Start, Error> {
        self.tracefs.record_moments(&self.plan.vmm)?;
        let vmm = self.launch(image)?;
        let (first_run, user_space) = self.wait(QUIET, "user space of the guest", |trace| {
            let timeline = Timeline::parse(trace)?;
            timeline.first_run.zip(timeline.user_space)
        })?;
        self.tracefs.stop()?;
        let measured = vmm.measured()?.pcr0;
        if measured != image.measurements.pcr0.to_string() {
            return Err(Error::Vmm(format!(
                "it measured {measured}, which is not PCR0 of the image"
            )));
        }
        Ok(Start {
            first_run,
            user_space,
            private: private_memory(&vmm)?,
        })
    }

    /// Counts the system calls of a start.
    fn system_calls(&self, image: &Image) -> Result<SystemCalls, Error> {
        self.tracefs.record_system_calls(&self.plan.vmm)?;
        let _vmm = self.launch(image)?;
        let calls = self.wait(LOOK, "the first KVM_RUN", SystemCalls::parse)?;
        self.tracefs.stop()?;
        Ok(calls)
    }

    /// Looks at the trace every `interval` until `find` finds what it wants there.
    fn wait<T>(
        &self,
        interval: Duration,
        what: &'static str,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let mut waited = Duration::ZERO;
        while waited < LIMIT {
            thread::sleep(interval);
            waited += interval;
            if let Some(found) = find(&self.tracefs.records()?) {
                return Ok(found);
            }
        }
        Err(Error::NotSeen { what, limit: LIMIT })
    }
}

/// What no other process shares with the VMM, without guest memory, in bytes.
fn private_memory(vmm: &Vmm) -> Result<u64, Error> {
    let path = format!("/proc/{}/smaps", vmm.process_id());
    let path = Path::new(&path);
    let smaps = fs::read_to_string(path).map_err(at("read", path))?;
    Ok(smaps::private_bytes(&smaps))
}

/// Runs `boot-bench hash` on the image.
fn hash(image: &Image) -> Result<Duration, Error> {
    let program = env::current_exe().map_err(bench::system("find this program"))?;
    let output = Command::new(&program)
        .arg("hash")
        .arg(&image.path)
        .output()
        .map_err(at("run", &program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let nanos = text.trim().parse().map(Duration::from_nanos);
    nanos.map_err(|_| Error::Hash(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a process has less than 2^52 bytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
