//! The Nitro Security Module of one enclave: a task that answers what its guest asks.
//!
//! ```text
//!   VMM ── packet ──► channel ─► rate ─► answered before? ─► nsm::Attestor ─► state written ─► packet ──► VMM
//!                                                                 │
//!                                                          EnclaveIssuer signs
//! ```
//!
//! # Whose word counts
//!
//! The registers of the image are set once, when the VMM has told what it measured and before the guest runs; nothing that comes
//! over the channel can set them, name another enclave or reach a key. A VMM that its guest has taken over can ask what any guest
//! may ask, for its own enclave, and no more.
//!
//! # The daemon may die
//!
//! A change of registers is written into the enclave's directory, with the number of the request and its response, before it is
//! answered (`state`). The next daemon connects to the VMM again, which repeats a request that was not answered; if that one was
//! carried out already, the response that was written down is sent again.
//!
//! # What one enclave can cost
//!
//! One request at a time, of bounded length; so many requests of each kind in a second (`rate`), and those above wait. Signing
//! happens on threads for blocking work, so that it holds up no client.

mod channel;
mod rate;
mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::Measurements;
use api::nsm::RequestPacket;
use attestation::Timestamp;
use nsm::{
    Answer, Attestor, Cost, MeasuredImage, ModuleId, ParentIdentity, Pcr, PcrBank, Platform, PlatformError,
    Request, Response,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::channel::{Channel, Heard};
use self::rate::Rate;
use self::state::{State, StateError};
use crate::authority::{Authority, AuthorityError, EnclaveIssuer, now};
use crate::error_chain::chain_of;
use crate::ids::EnclaveId;
use crate::run_directory::{EnclaveDirectory, RunDirectoryError};

/// Refused requests of one enclave that are logged.
const LOGGED_REFUSALS: u32 = 64;

/// What the security modules of all enclaves have in common.
#[derive(Debug)]
pub struct Attestation {
    /// Who signs.
    pub authority: Arc<Authority>,
    /// What PCR 3 and 4 say.
    pub parent: ParentIdentity,
}

/// Why an enclave cannot have a security module.
#[derive(Debug, thiserror::Error)]
pub enum SecurityModuleError {
    /// The socket in its directory.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// The socket cannot be watched.
    #[error("the channel to the VMM cannot be watched")]
    Channel(#[source] std::io::Error),
    /// The registers that were written down.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its name does not do in a certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Nor in a document.
    #[error(transparent)]
    ModuleId(#[from] nsm::ModuleIdError),
    /// The VMM has told measurements that are no digests.
    #[error("the measurements are no SHA-384 digests")]
    Measurements(#[from] nsm::ParsePcrError),
}

/// The task. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct SecurityModule {
    task: JoinHandle<()>,
    /// Closed to end the task.
    running: oneshot::Sender<()>,
}

impl SecurityModule {
    /// Of an enclave that was just measured and has not run yet. Must be called on a Tokio runtime.
    pub(crate) fn start(
        attestation: &Attestation,
        id: &EnclaveId,
        directory: &EnclaveDirectory,
        measurements: &Measurements,
        debug_mode: bool,
    ) -> Result<Self, SecurityModuleError> {
        let bank = PcrBank::at_boot(&measured(measurements)?, &attestation.parent, debug_mode);
        let state = State::create(directory.path(), &bank)?;
        Self::with(attestation, id, directory, bank, state)
    }

    /// Of an enclave that an earlier daemon has started. Must be called on a Tokio runtime.
    pub(crate) fn resume(
        attestation: &Attestation,
        id: &EnclaveId,
        directory: &EnclaveDirectory,
    ) -> Result<Self, SecurityModuleError> {
        let (state, bank) = State::load(directory.path())?;
        Self::with(attestation, id, directory, bank, state)
    }

    fn with(
        attestation: &Attestation,
        id: &EnclaveId,
        directory: &EnclaveDirectory,
        bank: PcrBank,
        state: State,
    ) -> Result<Self, SecurityModuleError> {
        let channel = Channel::new(directory.connect_nsm()?).map_err(SecurityModuleError::Channel)?;
        let issuer = EnclaveIssuer::new(Arc::clone(&attestation.authority), id)?;
        let module_id = ModuleId::new(issuer.module_id())?;
        let respondent = Respondent {
            attestor: Attestor::new(module_id, bank),
            issuer,
            state,
        };
        let (running, stopped) = oneshot::channel();
        let id = id.clone();
        let task = tokio::spawn(serve(channel, respondent, id, stopped));
        Ok(Self { task, running })
    }

    /// Ends the task. When this returns it writes to the enclave's directory no more.
    pub(crate) async fn stop(self) {
        drop(self.running);
        let _ = self.task.await;
    }
}

fn measured(measurements: &Measurements) -> Result<MeasuredImage, nsm::ParsePcrError> {
    Ok(MeasuredImage {
        pcr0: Pcr::from_hex(&measurements.pcr0)?,
        pcr1: Pcr::from_hex(&measurements.pcr1)?,
        pcr2: Pcr::from_hex(&measurements.pcr2)?,
        pcr8: measurements.pcr8.as_deref().map(Pcr::from_hex).transpose()?,
    })
}

/// Answers until the VMM is gone, or `stopped`. A request that is being carried out is carried out.
async fn serve(
    channel: Channel,
    mut respondent: Respondent,
    id: EnclaveId,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut rate = Rate::default();
    let mut refusals = 0;
    loop {
        let heard = tokio::select! {
            _ = &mut stopped => return,
            heard = next_request(&channel, &mut rate) => heard,
        };
        let packet = match heard {
            Heard::Packet(packet) => packet,
            Heard::Gone => {
                tracing::debug!(enclave = %id, "the VMM's NSM device has hung up");
                return;
            }
        };
        let Some(request) = RequestPacket::decode(&packet) else {
            refused(&id, &mut refusals, "a packet that is no request");
            continue;
        };
        let number = request.number;
        let answered = tokio::task::spawn_blocking(move || {
            let answer = respondent.answer(&packet);
            (respondent, answer)
        });
        // It ends otherwise only with the runtime, or if it panicked, which is not answered.
        let Ok((returned, answer)) = answered.await else {
            return;
        };
        respondent = returned;
        if let Some(reason) = &answer.refusal {
            refused(&id, &mut refusals, reason);
        }
        let said = tokio::select! {
            _ = &mut stopped => return,
            said = channel.say(number, &answer.response) => said,
        };
        if !said {
            return;
        }
    }
}

/// The next packet, once it is its turn.
async fn next_request(channel: &Channel, rate: &mut Rate) -> Heard {
    let heard = channel.heard().await;
    if let Heard::Packet(packet) = &heard {
        let request = RequestPacket::decode(packet).and_then(|packet| Request::decode(packet.request).ok());
        rate.wait(request.map_or(Cost::Lookup, |request| request.cost()))
            .await;
    }
    heard
}

fn refused(id: &EnclaveId, refusals: &mut u32, reason: &str) {
    *refusals = refusals.saturating_add(1);
    match *refusals {
        ..LOGGED_REFUSALS => tracing::info!(enclave = %id, reason, "a request to the NSM was refused"),
        LOGGED_REFUSALS => {
            tracing::warn!(enclave = %id, "more requests to the NSM were refused; they are not logged any more");
        }
        _ => {}
    }
}

/// What answers: the registers, who signs, and where it is written down.
#[derive(Debug)]
struct Respondent {
    attestor: Attestor,
    issuer: EnclaveIssuer,
    state: State,
}

/// For the guest and for the log.
struct Answered {
    response: Vec<u8>,
    refusal: Option<String>,
}

impl Respondent {
    /// Answers a packet that is one.
    fn answer(&mut self, packet: &[u8]) -> Answered {
        let Some(RequestPacket {
            number,
            room,
            request,
        }) = RequestPacket::decode(packet)
        else {
            return Answered {
                response: Vec::new(),
                refusal: None,
            };
        };
        let answered = self.answer_once(number, request);
        if u64::from(room) >= u64::try_from(answered.response.len()).unwrap_or(u64::MAX) {
            return answered;
        }
        Answered {
            response: Response::Error(nsm::ErrorCode::BufferTooSmall).encode(),
            refusal: Some(format!("there is room for {room} bytes of response")),
        }
    }

    fn answer_once(&mut self, number: u64, request: &[u8]) -> Answered {
        if let Some(response) = self.state.response_to(number) {
            return Answered {
                response: response.to_vec(),
                refusal: None,
            };
        }
        let reply = match self.attestor.answer(request, &mut OfIssuer(&mut self.issuer)) {
            Answer::Reply(reply) => reply,
            Answer::Change(change) => match self.state.write(&change.snapshot(), number, change.response()) {
                Ok(()) => change.commit(),
                Err(error) => {
                    tracing::error!(error = chain_of(&error), "registers cannot be written down");
                    change.abandon()
                }
            },
        };
        Answered {
            response: reply.bytes,
            refusal: reply.refusal.map(|refusal| chain_of(&refusal)),
        }
    }
}

/// The machine, as an attestor sees it.
struct OfIssuer<'a>(&'a mut EnclaveIssuer);

impl Platform for OfIssuer<'_> {
    fn now_ms(&mut self) -> u64 {
        now().as_millis()
    }

    fn fill_random(&mut self, bytes: &mut [u8]) -> Result<(), PlatformError> {
        Ok(getrandom::fill(bytes)?)
    }

    fn issue_document(&mut self, content: &nsm::AttestationContent<'_>) -> Result<Vec<u8>, PlatformError> {
        let pcrs = content.pcrs.iter().map(|(index, value)| {
            let index = u8::try_from(*index)?;
            Ok((index, value.0))
        });
        let pcrs = pcrs.collect::<Result<_, std::num::TryFromIntError>>()?;
        let owned = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
        let content = attestation::AttestationContent {
            module_id: content.module_id.to_string(),
            timestamp: Timestamp::from_millis(content.timestamp_ms),
            pcrs,
            // An empty key is none: no verifier takes a document with one.
            public_key: owned(content.public_key.filter(|key| !key.is_empty())),
            user_data: owned(content.user_data),
            nonce: owned(content.nonce),
        };
        Ok(self.0.document(&content)?)
    }
}
