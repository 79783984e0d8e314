//! Code of an attacker's in a program that runs: system calls that one of its threads makes as if somebody who has taken it over had
//! it make them.
//!
//! This needs no build of its own of the program, and no hole in it: root stops the thread with `ptrace(2)`, has it execute an
//! instruction `syscall` of the program with registers of the test's choice, and reads what came of it. The call is made by that
//! thread, with that thread's user, namespaces, limits and filter; that it is traced changes none of them. What a filter forbids ends
//! the program, as it would end one that was taken over.
//!
//! ```text
//!   stop        as soon as the thread is in user mode or waits in a system call, which is then interrupted
//!   call        registers, bytes below the stack; one step; the result
//!   let go      when `Hijacked` is dropped: the registers that there were, so that the thread goes on as if nothing had been
//! ```

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::libc::{self, c_int, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// `syscall`.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// For threads that are no children (`__WALL`).
const ANY_THREAD: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);

/// Bytes below the stack pointer that belong to the function that was interrupted (System V ABI, "red zone"), and for arguments.
const RED_ZONE: u64 = 128;
const ROOM: u64 = 16 << 10;

/// Errors are the last of all numbers.
const ERRORS: u64 = 4096;

/// An argument of a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A number, a descriptor, flags.
    Word(u64),
    /// A pointer to bytes, which the thread is given.
    Bytes(Vec<u8>),
}

impl Argument {
    /// A path, or another text that ends with a zero.
    pub fn text(text: impl AsRef<str>) -> Self {
        let mut bytes = text.as_ref().as_bytes().to_vec();
        bytes.push(0);
        Self::Bytes(bytes)
    }

    /// A structure of 32-bit words.
    pub fn words(words: &[u32]) -> Self {
        Self::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

impl From<u64> for Argument {
    fn from(word: u64) -> Self {
        Self::Word(word)
    }
}

impl From<u32> for Argument {
    fn from(word: u32) -> Self {
        Self::Word(word.into())
    }
}

impl From<i64> for Argument {
    fn from(word: i64) -> Self {
        Self::Word(word.cast_unsigned())
    }
}

/// Sign-extended, as the C library does it.
impl From<i32> for Argument {
    fn from(word: i32) -> Self {
        i64::from(word).into()
    }
}

/// What became of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, and this is its result.
    Made(u64),
    /// The kernel has refused it.
    Refused(Errno),
    /// It was the end of the process, by this signal.
    Ended(c_int),
}

impl Outcome {
    /// The result.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn made(self) -> u64 {
        let Self::Made(result) = self else {
            panic!("{self:?}");
        };
        result
    }
}

/// A thread of another process that does what it is told, and goes on as before when this is dropped.
#[derive(Debug)]
pub struct Hijacked {
    thread: Pid,
    memory: File,
    before: user_regs_struct,
    instruction: u64,
    ended: bool,
}

impl Hijacked {
    /// Stops this thread of this process.
    ///
    /// # Panics
    /// If there is none, or this process is not root.
    pub fn stop(process: u32, thread: u32) -> Self {
        let thread = attach(thread);
        ptrace::interrupt(traced(thread)).expect("interrupt a thread");
        loop {
            let status = next_stop(thread);
            if is_interruption(status) {
                break;
            }
            resume(thread, status);
        }
        Self::stopped(process, thread)
    }

    /// Lets this process, which has stopped itself, go on until its first thread has made the system call `number` successfully and is
    /// about to return from it.
    ///
    /// # Panics
    /// If it ends before.
    pub fn after_call(process: u32, number: i64) -> Self {
        let thread = attach(process);
        ptrace::interrupt(traced(thread)).expect("interrupt a thread");
        next_stop(thread);
        rustix::process::kill_process(thread, rustix::process::Signal::CONT).expect("let it go on");
        let number = u64::try_from(number).expect("a system call");
        loop {
            ptrace::syscall(traced(thread), None).expect("trace a process");
            let status = next_stop(thread);
            assert!(status.stopped(), "the process has ended: {status:?}");
            let registers = ptrace::getregs(traced(thread)).expect("registers");
            // On the way in, the result is that there is no such call.
            if registers.orig_rax == number && registers.rax == 0 {
                break;
            }
        }
        Self::stopped(process, thread)
    }

    fn stopped(process: u32, thread: Pid) -> Self {
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{process}/mem"));
        let memory = memory.expect("its memory");
        Self {
            thread,
            instruction: find_instruction(process, &memory),
            memory,
            before: ptrace::getregs(traced(thread)).expect("registers"),
            ended: false,
        }
    }

    /// Has the thread make a system call.
    ///
    /// # Panics
    /// After its end.
    pub fn call(&mut self, number: i64, arguments: &[Argument]) -> Outcome {
        assert!(!self.ended, "the process has ended");
        let mut words = [0; 6];
        let mut free = self.room();
        for (word, argument) in words.iter_mut().zip(arguments) {
            *word = match argument {
                Argument::Word(word) => *word,
                Argument::Bytes(bytes) => {
                    let place = free;
                    self.memory.write_all_at(bytes, place).expect("write arguments");
                    free += (bytes.len() as u64).next_multiple_of(16);
                    place
                }
            };
        }
        let [rdi, rsi, rdx, r10, r8, r9] = words;
        let registers = user_regs_struct {
            rip: self.instruction,
            rax: u64::try_from(number).expect("a system call"),
            // Otherwise the kernel takes it for the one that was interrupted, and may make it again.
            orig_rax: u64::MAX,
            rsp: self.room(),
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.before
        };
        let thread = traced(self.thread);
        let outcome = ptrace::setregs(thread, registers).and_then(|()| self.step());
        match outcome {
            Err(nix::errno::Errno::ESRCH) => self.end(),
            outcome => outcome.expect("trace a thread"),
        }
    }

    /// Bytes that the thread had been given as the first [`Argument::Bytes`] of the last call, as they are now.
    ///
    /// # Panics
    /// If there is no room for so many.
    pub fn first_bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_exact_at(&mut bytes, self.room())
            .expect("read arguments");
        bytes
    }

    /// Where arguments lie: below everything that the thread uses of its stack.
    fn room(&self) -> u64 {
        (self.before.rsp - RED_ZONE - ROOM) & !0xf
    }

    fn step(&mut self) -> nix::Result<Outcome> {
        let mut signal = None;
        loop {
            ptrace::step(traced(self.thread), signal)?;
            let status = next_stop(self.thread);
            if let Some(ending) = status.terminating_signal() {
                self.ended = true;
                return Ok(Outcome::Ended(ending));
            }
            assert!(status.stopped(), "the process has ended: {status:?}");
            match status.stopping_signal() {
                Some(libc::SIGTRAP) => return self.result(),
                other => signal = passed_on(other),
            }
        }
    }

    fn result(&self) -> nix::Result<Outcome> {
        let result = ptrace::getregs(traced(self.thread))?.rax;
        Ok(match u64::MAX - result {
            error @ 0..ERRORS => {
                let error = i32::try_from(error + 1).expect("below 4096");
                Outcome::Refused(Errno::from_raw_os_error(error))
            }
            _ => Outcome::Made(result),
        })
    }

    /// Somebody else has killed the process while the thread was stopped; it is gone only when its tracer knows.
    fn end(&mut self) -> Outcome {
        self.ended = true;
        loop {
            if let Some(ending) = next_stop(self.thread).terminating_signal() {
                return Outcome::Ended(ending);
            }
        }
    }
}

impl Drop for Hijacked {
    fn drop(&mut self) {
        let thread = traced(self.thread);
        if self.ended {
            return;
        }
        let let_go = ptrace::setregs(thread, self.before).and_then(|()| ptrace::detach(thread, None));
        if let_go == Err(nix::errno::Errno::ESRCH) {
            self.end();
        }
    }
}

fn attach(thread: u32) -> Pid {
    let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
    let thread = thread.expect("a thread");
    ptrace::seize(traced(thread), ptrace::Options::empty()).expect("trace a thread");
    thread
}

fn traced(thread: Pid) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(thread.as_raw_nonzero().get())
}

fn next_stop(thread: Pid) -> WaitStatus {
    let (_, status) = rustix::process::waitpid(Some(thread), ANY_THREAD)
        .expect("wait for a thread")
        .expect("a thread that does something");
    status
}

/// A stop that was asked for (`PTRACE_EVENT_STOP`).
fn is_interruption(status: WaitStatus) -> bool {
    status.as_raw() >> 16 == libc::PTRACE_EVENT_STOP
}

fn resume(thread: Pid, status: WaitStatus) {
    let signal = passed_on(status.stopping_signal());
    ptrace::cont(traced(thread), signal).expect("let a thread go on");
}

/// What comes to the thread meanwhile. Signals without a name are those by which threads of one program wake each other: it is awake.
fn passed_on(signal: Option<c_int>) -> Option<Signal> {
    signal.and_then(|signal| Signal::try_from(signal).ok())
}

/// Where the program has an instruction `syscall`.
fn find_instruction(process: u32, memory: &File) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("its memory");
    let code = maps.lines().filter(|line| line.contains(" r-xp "));
    let mut found = code.filter_map(|line| find_in(line.split(' ').next()?, memory));
    found.next().expect("a system call")
}

/// Likewise, in one range of addresses. There are some that nobody can read.
fn find_in(range: &str, memory: &File) -> Option<u64> {
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let mut bytes = vec![0; usize::try_from(end - start).ok()?];
    memory.read_exact_at(&mut bytes, start).ok()?;
    let at = memchr::memmem::find(&bytes, &INSTRUCTION)?;
    Some(start + at as u64)
}
