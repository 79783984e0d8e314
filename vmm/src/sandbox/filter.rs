//! Rules as a filter of the kernel's (`seccomp(2)`).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Class;
use super::calls::{self, Only, Rule};

/// What becomes of a call that is in no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It ends the process.
    #[default]
    End,
    /// It is made, and the parent's kernel logs it: for developers.
    Log,
}

/// A filter that can be installed, by any number of threads.
#[derive(Debug, Clone)]
pub struct Filter(BpfProgram);

/// There is no such filter, or the kernel does not take it.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The rules make no filter.
    #[error("the rules for system calls make no filter")]
    Rules(#[from] seccompiler::BackendError),
    /// The kernel refuses.
    #[error("the kernel takes no filter of system calls (is it built with CONFIG_SECCOMP_FILTER?)")]
    Kernel(#[from] seccompiler::Error),
}

impl Filter {
    /// The filter of a class.
    ///
    /// # Errors
    /// If the rules are at fault, which a test rules out.
    pub fn of(class: Class, verdict: Verdict) -> Result<Self, FilterError> {
        let rules = rules_of(class)?;
        let otherwise = match verdict {
            Verdict::End => SeccompAction::KillProcess,
            Verdict::Log => SeccompAction::Log,
        };
        let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64)?;
        Ok(Self(filter.try_into()?))
    }

    /// From now on the calling thread, and those that it starts, are held by it as well.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn install(&self) -> Result<(), FilterError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }
}

/// For each call what its arguments may be; a call without a rule for them may have any.
fn rules_of(class: Class) -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    let all = calls::of(class);
    let with_any_arguments = |call| all.iter().any(|rule| rule.call == call && rule.only == Only::Any);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Rule { call, only, .. } in &all {
        let alternatives = rules.entry(*call).or_default();
        if let Some(condition) = condition(*only)?.filter(|_| !with_any_arguments(*call)) {
            alternatives.push(SeccompRule::new(vec![condition])?);
        }
    }
    Ok(rules)
}

/// None for a call with any arguments.
fn condition(only: Only) -> Result<Option<SeccompCondition>, seccompiler::BackendError> {
    let length = SeccompCmpArgLen::Dword;
    match only {
        Only::Any => Ok(None),
        Only::Equal(argument, value) => {
            SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value.into()).map(Some)
        }
        Only::Without(argument, bits) => {
            SeccompCondition::new(argument, length, SeccompCmpOp::MaskedEq(bits.into()), 0).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_filter() {
        for class in [
            Class::Boot,
            Class::Vcpu,
            Class::Vsock { unix_sockets: true },
            Class::Vsock { unix_sockets: false },
            Class::Devices,
        ] {
            assert!(Filter::of(class, Verdict::End).is_ok(), "{class:?}");
        }
    }
}
