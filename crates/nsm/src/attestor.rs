//! Answers requests of one enclave.
//!
//! # A change is written down before it is answered
//!
//! A guest that was told that a register is extended or locked relies on it, whatever happens to the daemon. So a request
//! that changes registers is not answered at once: it gives a [`PendingChange`], which holds the next state and the response
//! while the attestor still has the old one.
//!
//! ```text
//! answer(request) ─► Reply                                       send it
//!                 └► PendingChange ── snapshot() written ─► commit()   the new state is the attestor's; send the reply
//!                                  └─ writing failed ─────► abandon()  the old state stays; the reply is InternalError
//! ```
//!
//! A pending change borrows the attestor, so no other request can come between. A daemon that dies after writing and before
//! sending has made a change that the guest was not told of; whoever repeats such a request must know that it was done, or
//! the register is extended twice. [`PendingChange::response`] is there to be written down with the snapshot for that.

use std::borrow::Cow;

use crate::platform::{AttestationContent, Platform, PlatformError};
use crate::response::{MAX_RESPONSE, RANDOM_LEN};
use crate::{ErrorCode, ModuleId, PcrBank, PcrError, Request, RequestError, Response, Snapshot};

/// The most bytes that `user_data`, `nonce` and `public_key` may each have.
pub const MAX_FIELD: usize = 1024;

/// The security module of one enclave.
#[derive(Debug)]
pub struct Attestor {
    module_id: ModuleId,
    bank: PcrBank,
}

/// What became of a request.
#[derive(Debug)]
pub enum Answer<'a> {
    /// Nothing has changed.
    Reply(Reply),
    /// Registers are to change.
    Change(PendingChange<'a>),
}

/// What to send to the guest.
#[derive(Debug)]
pub struct Reply {
    /// A response, at most [`MAX_RESPONSE`] bytes.
    pub bytes: Vec<u8>,
    /// Why the request was refused, if it was.
    pub refusal: Option<Refusal>,
}

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not a request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The rules of the registers forbid it.
    #[error(transparent)]
    Pcr(#[from] PcrError),
    /// A field of an attestation is too long.
    #[error("{field} of {length} bytes for an attestation document; {MAX_FIELD} are accepted")]
    FieldTooLarge {
        /// Its name.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// The machine has no random bytes.
    #[error("no random bytes for an enclave")]
    Random(#[source] PlatformError),
    /// The machine cannot make a document.
    #[error("no attestation document for an enclave")]
    Issue(#[source] PlatformError),
    /// A document does not fit into a response. With fields of limited length, this is the chain of certificates' fault.
    #[error("an attestation document of {length} bytes does not fit into a response of {MAX_RESPONSE}")]
    DocumentTooLarge {
        /// Its length in bytes, without wrapper.
        length: usize,
    },
    /// A change of registers could not be written down, said whoever abandoned it.
    #[error("a change of PCRs was not written down, and so not made")]
    Abandoned,
}

impl Refusal {
    /// What the guest is told.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Request(error) => error.code(),
            Self::Pcr(error) => error.code(),
            Self::FieldTooLarge { .. } => ErrorCode::InputTooLarge,
            // Nothing the guest could change. BufferTooSmall would ask it to come back with a larger buffer.
            Self::Random(_) | Self::Issue(_) | Self::DocumentTooLarge { .. } | Self::Abandoned => {
                ErrorCode::InternalError
            }
        }
    }
}

impl Reply {
    fn fulfilled(bytes: Vec<u8>) -> Self {
        Self { bytes, refusal: None }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self {
            bytes: Response::Error(refusal.code()).encode(),
            refusal: Some(refusal),
        }
    }
}

/// A change that is not made yet. Dropping it is the same as [`abandon`](Self::abandon), without a reply.
#[derive(Debug)]
#[must_use = "the change is not made before it is committed"]
pub struct PendingChange<'a> {
    current: &'a mut PcrBank,
    /// Boxed, because 32 registers would make every answer large.
    next: Box<PcrBank>,
    response: Vec<u8>,
}

impl PendingChange<'_> {
    /// The state after the change, to be written down.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::from(&*self.next)
    }

    /// What the guest will be told.
    pub fn response(&self) -> &[u8] {
        &self.response
    }

    /// Makes the change. Only for a change whose snapshot is safe.
    pub fn commit(self) -> Reply {
        *self.current = *self.next;
        Reply::fulfilled(self.response)
    }

    /// Leaves everything as it was, because the snapshot could not be written.
    pub fn abandon(self) -> Reply {
        Refusal::Abandoned.into()
    }
}

/// A request that was fulfilled.
struct Fulfilled {
    response: Vec<u8>,
    /// The registers afterwards, if they are not as before.
    next: Option<Box<PcrBank>>,
}

impl From<Response<'_>> for Fulfilled {
    fn from(response: Response<'_>) -> Self {
        Self {
            response: response.encode(),
            next: None,
        }
    }
}

impl Attestor {
    /// For the enclave with this name and these registers.
    pub fn new(module_id: ModuleId, bank: PcrBank) -> Self {
        Self { module_id, bank }
    }

    /// The registers.
    pub fn bank(&self) -> &PcrBank {
        &self.bank
    }

    /// The enclave's module.
    pub fn module_id(&self) -> &ModuleId {
        &self.module_id
    }

    /// Answers any bytes.
    pub fn answer(&mut self, request: &[u8], platform: &mut (impl Platform + ?Sized)) -> Answer<'_> {
        match Request::decode(request) {
            Ok(request) => self.fulfil(&request, platform),
            Err(error) => Answer::Reply(Refusal::from(error).into()),
        }
    }

    /// Answers a request that was decoded before, for instance to know its [`Cost`](crate::Cost).
    pub fn fulfil(&mut self, request: &Request<'_>, platform: &mut (impl Platform + ?Sized)) -> Answer<'_> {
        match self.fulfilled(request, platform) {
            Ok(Fulfilled {
                response,
                next: Some(next),
            }) => Answer::Change(PendingChange {
                current: &mut self.bank,
                next,
                response,
            }),
            Ok(Fulfilled { response, next: None }) => Answer::Reply(Reply::fulfilled(response)),
            Err(refusal) => Answer::Reply(refusal.into()),
        }
    }

    fn fulfilled(
        &self,
        request: &Request<'_>,
        platform: &mut (impl Platform + ?Sized),
    ) -> Result<Fulfilled, Refusal> {
        match request {
            Request::DescribePcr { index } => self.describe_pcr(*index),
            Request::ExtendPcr { index, data } => self.changed(|bank| {
                let value = bank.extend(*index, data)?;
                Ok(Response::ExtendPcr { value })
            }),
            Request::LockPcr { index } => self.changed(|bank| bank.lock(*index).map(|()| Response::LockPcr)),
            Request::LockPcrs { range } => {
                self.changed(|bank| bank.lock_range(*range).map(|()| Response::LockPcrs))
            }
            Request::DescribeNsm => Ok(self.describe_nsm()),
            Request::GetRandom => get_random(platform),
            Request::Attestation {
                user_data,
                nonce,
                public_key,
            } => {
                let content = AttestationContent {
                    module_id: &self.module_id,
                    timestamp_ms: platform.now_ms(),
                    pcrs: self.bank.locked().collect(),
                    public_key: field("public_key", public_key.as_ref())?,
                    user_data: field("user_data", user_data.as_ref())?,
                    nonce: field("nonce", nonce.as_ref())?,
                };
                attestation(&content, platform)
            }
        }
    }

    fn describe_pcr(&self, index: u16) -> Result<Fulfilled, Refusal> {
        let locked = self.bank.is_locked(index)?;
        let value = self.bank.value(index)?;
        Ok(Response::DescribePcr { locked, value }.into())
    }

    fn describe_nsm(&self) -> Fulfilled {
        let locked_pcrs: Vec<u16> = self.bank.locked().map(|(index, _)| index).collect();
        Response::DescribeNsm {
            module_id: &self.module_id,
            locked_pcrs: &locked_pcrs,
        }
        .into()
    }

    /// What `change` does to a copy of the registers.
    fn changed(
        &self,
        change: impl FnOnce(&mut PcrBank) -> Result<Response<'static>, PcrError>,
    ) -> Result<Fulfilled, Refusal> {
        let mut next = self.bank.clone();
        let response = change(&mut next)?.encode();
        let next = (next != self.bank).then(|| Box::new(next));
        Ok(Fulfilled { response, next })
    }
}

fn get_random(platform: &mut (impl Platform + ?Sized)) -> Result<Fulfilled, Refusal> {
    let mut random = [0; RANDOM_LEN];
    platform.fill_random(&mut random).map_err(Refusal::Random)?;
    Ok(Response::GetRandom { random: &random }.into())
}

fn attestation(
    content: &AttestationContent<'_>,
    platform: &mut (impl Platform + ?Sized),
) -> Result<Fulfilled, Refusal> {
    let document = platform.issue_document(content).map_err(Refusal::Issue)?;
    let fulfilled = Fulfilled::from(Response::Attestation { document: &document });
    if fulfilled.response.len() > MAX_RESPONSE {
        let length = document.len();
        return Err(Refusal::DocumentTooLarge { length });
    }
    Ok(fulfilled)
}

/// A field of an attestation, if it is short enough.
fn field<'a>(name: &'static str, bytes: Option<&'a Cow<'_, [u8]>>) -> Result<Option<&'a [u8]>, Refusal> {
    match bytes {
        Some(bytes) if bytes.len() > MAX_FIELD => Err(Refusal::FieldTooLarge {
            field: name,
            length: bytes.len(),
        }),
        bytes => Ok(bytes.map(AsRef::as_ref)),
    }
}
