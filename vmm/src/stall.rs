//! Finds out that a guest has halted for ever.
//!
//! With the interrupt controllers in KVM, a halted vCPU waits inside `KVM_RUN`, even one that no interrupt can wake. So
//! the device thread begins a *round* now and then: it interrupts every vCPU with a signal, and each looks at itself.
//!
//! A vCPU that is halted with interrupts off can still be woken by another vCPU: with a start-up IPI, an NMI, or, if it
//! waits for a paravirtual spinlock, with a hypercall. Only when *all* are halted at the same moment has the guest ended.
//! That each was halted at some moment of a round does not show it, therefore there are two kinds of rounds:
//!
//! ```text
//!   look:     every vCPU notes what it found and goes on
//!   confirm:  begun if the last look found all halted. A vCPU that is halted stays out of the guest until
//!             all are (the guest has ended), one is not, or it has taken too long (the guest goes on)
//! ```

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long halted vCPUs are kept out of the guest for others that have not looked yet. Far more than a signal takes;
/// were it missed, this is the longest that a vCPU's wake-up is delayed.
const LONGEST_CONFIRMATION: Duration = Duration::from_millis(100);

/// What the vCPUs of one guest know of each other.
#[derive(Debug)]
pub struct StallCheck {
    round: Mutex<Round>,
    confirmation_over: Condvar,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// What each vCPU found when it last looked.
    halted: Vec<bool>,
    /// In a round that confirms and has not come to its end: the vCPUs that are being kept out of the guest.
    kept_out: Option<usize>,
}

impl StallCheck {
    /// For a guest with `vcpus` vCPUs, none of which has looked.
    pub fn new(vcpus: usize) -> Self {
        Self {
            round: Mutex::new(Round {
                number: 0,
                halted: vec![false; vcpus],
                kept_out: None,
            }),
            confirmation_over: Condvar::new(),
        }
    }

    /// Begins the next round. The caller then interrupts every vCPU.
    pub fn begin_round(&self) {
        let mut round = self.lock();
        round.number += 1;
        round.kept_out = round.halted.iter().all(|halted| *halted).then_some(0);
    }

    /// vCPU number `vcpu`, out of the guest, has looked at itself. True for the vCPU that makes it certain that the guest
    /// has ended. May wait for the other vCPUs, but only if all seemed halted in the last round.
    pub fn look(&self, vcpu: usize, halted: bool) -> bool {
        let mut round = self.lock();
        if let Some(noted) = round.halted.get_mut(vcpu) {
            *noted = halted;
        }
        let Some(kept_out) = round.kept_out else {
            return false;
        };
        if !halted {
            self.end_confirmation(&mut round);
            return false;
        }
        if kept_out + 1 == round.halted.len() {
            self.end_confirmation(&mut round);
            return true;
        }
        round.kept_out = Some(kept_out + 1);
        self.wait(round);
        false
    }

    fn wait(&self, round: MutexGuard<'_, Round>) {
        let number = round.number;
        let undecided = |round: &mut Round| round.number == number && round.kept_out.is_some();
        let (mut round, waited) = self
            .confirmation_over
            .wait_timeout_while(round, LONGEST_CONFIRMATION, undecided)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && round.number == number {
            self.end_confirmation(&mut round);
        }
    }

    fn end_confirmation(&self, round: &mut Round) {
        round.kept_out = None;
        self.confirmation_over.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn kept_out(check: &StallCheck) -> Option<usize> {
        check.lock().kept_out
    }

    #[test]
    fn a_single_vcpu_ends_the_guest_when_two_rounds_find_it_halted() {
        let check = StallCheck::new(1);
        check.begin_round();
        assert!(!check.look(0, true));
        check.begin_round();
        assert!(check.look(0, true));
    }

    #[test]
    fn a_vcpu_that_runs_again_starts_the_count_anew() {
        let check = StallCheck::new(1);
        for halted in [true, false, true] {
            check.begin_round();
            assert!(!check.look(0, halted));
        }
        check.begin_round();
        assert!(check.look(0, true));
    }

    #[test]
    fn nobody_waits_for_a_vcpu_that_was_not_halted() {
        let check = StallCheck::new(2);
        for _ in 0..3 {
            check.begin_round();
            assert!(!check.look(0, true));
            assert!(!check.look(1, false));
            assert_eq!(kept_out(&check), None);
        }
    }

    /// vCPUs that take turns in being halted, as those that hand a lock to each other do, each found at a bad moment.
    #[test]
    fn halted_one_after_the_other_is_not_halted_together() {
        let check = StallCheck::new(2);
        check.begin_round();
        assert!(!check.look(0, true));
        assert!(!check.look(1, true));

        check.begin_round();
        thread::scope(|scope| {
            let first = scope.spawn(|| check.look(0, true));
            while kept_out(&check) == Some(0) {
                thread::yield_now();
            }
            assert!(!check.look(1, false));
            assert!(!first.join().unwrap());
        });
        assert_eq!(kept_out(&check), None);
    }

    #[test]
    fn all_halted_together_is_told_by_exactly_one() {
        let check = StallCheck::new(3);
        let looks = || -> usize {
            check.begin_round();
            thread::scope(|scope| {
                let looks: Vec<_> = (0..3)
                    .map(|vcpu| {
                        scope.spawn({
                            let check = &check;
                            move || check.look(vcpu, true)
                        })
                    })
                    .collect();
                looks
                    .into_iter()
                    .filter_map(|look| look.join().ok())
                    .filter(|ended| *ended)
                    .count()
            })
        };
        assert_eq!(looks(), 0, "one round is not enough");
        // A slow machine may let a round run out of time; the guest stays halted, so a later one succeeds.
        assert_eq!((0..100).map(|_| looks()).find(|told| *told > 0), Some(1));
    }

    #[test]
    fn a_vcpu_that_does_not_look_holds_the_others_up_for_a_while_only() {
        let check = StallCheck::new(2);
        check.begin_round();
        assert!(!check.look(0, true));
        assert!(!check.look(1, true));
        check.begin_round();

        assert!(!check.look(0, true));

        assert!(!check.look(1, true), "the round is over");
    }
}
