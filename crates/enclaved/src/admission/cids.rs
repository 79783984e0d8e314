//! vsock context identifiers. An enclave that asks for none gets the next free one, counting up from 16 as on AWS.
//!
//! Counting up, rather than taking the lowest free number, keeps a peer that still talks to an ended enclave from
//! reaching its successor.

use api::{ErrorCode, FIRST_ENCLAVE_CID, Failure};

/// The CID that stands for "any" in vsock.
const ANY: u32 = u32::MAX;

/// The highest CID with a meaning of its own: hypervisor 0, loopback 1, host 2, parent instance 3.
const LAST_RESERVED: u32 = api::PARENT_CID;

/// Hands out CIDs. What is held is the registry's to say.
#[derive(Debug)]
pub struct CidSequence {
    next: u32,
}

impl Default for CidSequence {
    fn default() -> Self {
        Self {
            next: FIRST_ENCLAVE_CID,
        }
    }
}

impl CidSequence {
    /// `wanted` if it is usable and free, or the next free CID if nothing is wanted.
    ///
    /// # Errors
    /// E29, as AWS's driver: reserved or in use.
    pub fn choose(&mut self, wanted: Option<u32>, is_held: impl Fn(u32) -> bool) -> Result<u32, Failure> {
        let Some(cid) = wanted else {
            return Ok(self.advance(is_held));
        };
        if cid <= LAST_RESERVED || cid == ANY {
            return Err(Failure::new(
                ErrorCode::IoctlFailure,
                format!(
                    "CID {cid} is reserved; choose one from {} to {}.",
                    LAST_RESERVED + 1,
                    ANY - 1
                ),
            ));
        }
        if is_held(cid) {
            return Err(Failure::new(
                ErrorCode::IoctlFailure,
                format!("CID {cid} is in use by another enclave; leave out --enclave-cid to get a free one."),
            ));
        }
        Ok(cid)
    }

    /// Goes on after `cid`, which an earlier daemon gave out.
    pub fn pass(&mut self, cid: u32) {
        if cid >= self.next && cid < ANY - 1 {
            self.next = cid + 1;
        }
    }

    /// Ends because fewer enclaves exist than CIDs.
    fn advance(&mut self, is_held: impl Fn(u32) -> bool) -> u32 {
        loop {
            let cid = self.next;
            self.next = if cid >= ANY - 1 {
                FIRST_ENCLAVE_CID
            } else {
                cid + 1
            };
            if !is_held(cid) {
                return cid;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cids_count_up_from_sixteen_past_those_in_use_and_are_not_reused_at_once() {
        let mut cids = CidSequence::default();

        assert_eq!(cids.choose(None, |_| false).unwrap(), 16);
        assert_eq!(cids.choose(None, |cid| cid == 17).unwrap(), 18);
        assert_eq!(cids.choose(None, |_| false).unwrap(), 19);
    }

    #[test]
    fn the_sequence_wraps_before_the_wildcard() {
        let mut cids = CidSequence { next: ANY - 1 };

        assert_eq!(cids.choose(None, |_| false).unwrap(), ANY - 1);
        assert_eq!(cids.choose(None, |_| false).unwrap(), 16);
    }

    #[test]
    fn a_wanted_cid_is_given_unless_it_is_reserved_or_held() {
        let mut cids = CidSequence::default();

        assert_eq!(cids.choose(Some(4), |_| false).unwrap(), 4);
        for reserved in [0, 1, 2, 3, u32::MAX] {
            let failure = cids.choose(Some(reserved), |_| false).unwrap_err();
            assert_eq!(failure.code, ErrorCode::IoctlFailure, "{reserved}");
        }
        let failure = cids.choose(Some(20), |cid| cid == 20).unwrap_err();
        assert_eq!(failure.code, ErrorCode::IoctlFailure);
        assert!(
            failure.message.contains("CID 20 is in use"),
            "{}",
            failure.message
        );
    }
}
