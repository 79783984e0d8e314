//! `allocator.yaml`.

use enclaved::allocator::configuration::{Configuration, CpuRequest};

/// CPUs of the largest machine that the allocator reads of.
const MOST_CPUS: u32 = 1 << 16;

/// What is accepted reserves something, within the limits of any machine, and what is wrong with the rest is said in a line that a
/// terminal can show.
pub(crate) fn check(input: &[u8]) {
    match Configuration::parse(input) {
        Ok(configuration) => {
            assert!(!configuration.requests.is_empty());
            for request in configuration.requests {
                assert!(request.memory_mib > 0);
                match request.cpus {
                    CpuRequest::Count(count) => assert!(count > 0),
                    CpuRequest::Pool(cpus) => {
                        assert!(cpus.last().is_some_and(|last| *last < MOST_CPUS));
                    }
                }
            }
        }
        Err(problem) => {
            let said = problem.to_string();
            assert!(!said.is_empty() && !said.contains(char::is_control), "{said:?}");
            assert!(said.len() < 1000, "{said}");
        }
    }
}
