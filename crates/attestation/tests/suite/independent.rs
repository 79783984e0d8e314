//! Documents judged by implementations that are not ours: the programs of `oracles/attestation-verifiers`, in the directory
//! that `ATTESTATION_VERIFIERS` names. `cargo xtask test` installs them and runs these tests.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use attestation::{AttestationContent, MapForm, Timestamp, TrustAnchor};

use crate::authority::{Authority, NOW};
use crate::vectors::{GENUINE, aws_root, own_time};

/// Names the directory with the verifiers.
const VARIABLE: &str = "ATTESTATION_VERIFIERS";

/// Names the directory with a running enclave's documents, `*.cose`, and with the root they lead to, `root.pem`.
const DOCUMENTS_VARIABLE: &str = "ATTESTATION_DOCUMENTS";

/// A verifier, and what it makes of documents.
struct Verifier {
    program: &'static str,
    /// Bytes of user data and nonce that it accepts. Genuine documents may have 1024.
    longest_field: usize,
}

const NSM_NITRO_ENCLAVE_UTILS: Verifier = Verifier {
    program: "nsm-nitro-enclave-utils",
    longest_field: 1024,
};

const EPSILON_ATTESTATION_VERIFIER: Verifier = Verifier {
    program: "epsilon-attestation-verifier",
    longest_field: 512,
};

const TEE_VERIFIER: Verifier = Verifier {
    program: "tee-verifier",
    longest_field: 1024,
};

impl Verifier {
    fn accepts(&self, document: &[u8], root: &TrustAnchor, at: Timestamp) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let (document_path, root_path) = (directory.path().join("document"), directory.path().join("root"));
        std::fs::write(&document_path, document).unwrap();
        std::fs::write(&root_path, root.certificate().to_pem().unwrap()).unwrap();
        let verifiers = PathBuf::from(std::env::var_os(VARIABLE).unwrap_or_default());
        let output = Command::new(verifiers.join(self.program))
            .arg(document_path)
            .arg(root_path)
            .arg(at.as_millis().to_string())
            .output()
            .unwrap();
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("{}: {output:?}", self.program),
        }
    }

    fn accepts_genuine_documents(&self) {
        for (name, document) in GENUINE {
            let at = own_time(document);
            assert!(self.accepts(document, &aws_root(), at), "{name}");
            assert!(!self.accepts(document, &Authority::new(1).root(), at), "{name}");
        }
    }

    /// Every optional field as long as this verifier lets it be.
    fn fullest(&self, content: AttestationContent) -> AttestationContent {
        AttestationContent {
            public_key: Some(vec![1; 1024]),
            user_data: Some(vec![2; self.longest_field]),
            nonce: Some(vec![3; self.longest_field]),
            ..content
        }
    }

    fn accepts_ours_with_our_root_alone(&self) {
        let authority = Authority::new(1);
        for content in [authority.content(), self.fullest(authority.content())] {
            for form in [MapForm::Definite, MapForm::Indefinite] {
                let document = authority.write_as(&content, form);
                self.accepts_with_this_root_alone(&document, &authority.root(), NOW);
                assert!(
                    !self.accepts(&document, &Authority::new(2).root(), NOW),
                    "{form:?}"
                );
                let late = NOW.after(Duration::from_hours(4));
                assert!(!self.accepts(&document, &authority.root(), late), "{form:?}");
            }
        }
    }

    fn accepts_with_this_root_alone(&self, document: &[u8], root: &TrustAnchor, at: Timestamp) {
        assert!(self.accepts(document, root, at), "our root");
        assert!(!self.accepts(document, &aws_root(), at), "AWS's root");
        let mut forged = document.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(!self.accepts(&forged, root, at), "another signature");
    }

    /// The documents that an enclave has just made, at this time.
    fn accepts_a_running_enclaves(&self) {
        let directory = PathBuf::from(std::env::var_os(DOCUMENTS_VARIABLE).unwrap());
        let root = TrustAnchor::from_bytes(&std::fs::read(directory.join("root.pem")).unwrap()).unwrap();
        let mut names = Vec::new();
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "cose") {
                self.accepts_with_this_root_alone(&std::fs::read(&path).unwrap(), &root, now());
                names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        names.sort();
        assert_eq!(names, ["full", "plain"], "{}", directory.display());
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_secs(since.as_secs())
}

#[test]
#[ignore = "needs the Rust verifier; cargo xtask test installs it"]
fn nsm_nitro_enclave_utils_accepts_genuine_documents() {
    NSM_NITRO_ENCLAVE_UTILS.accepts_genuine_documents();
}

#[test]
#[ignore = "needs the Rust verifier; cargo xtask test installs it"]
fn nsm_nitro_enclave_utils_accepts_our_documents_with_our_root_alone() {
    NSM_NITRO_ENCLAVE_UTILS.accepts_ours_with_our_root_alone();
}

#[test]
#[ignore = "needs the Python verifier; cargo xtask test installs it"]
fn epsilon_attestation_verifier_accepts_genuine_documents() {
    EPSILON_ATTESTATION_VERIFIER.accepts_genuine_documents();
}

#[test]
#[ignore = "needs the Python verifier; cargo xtask test installs it"]
fn epsilon_attestation_verifier_accepts_our_documents_with_our_root_alone() {
    EPSILON_ATTESTATION_VERIFIER.accepts_ours_with_our_root_alone();
}

#[test]
#[ignore = "needs the JavaScript verifier; cargo xtask test installs it"]
fn tee_verifier_accepts_genuine_documents() {
    TEE_VERIFIER.accepts_genuine_documents();
}

#[test]
#[ignore = "needs the JavaScript verifier; cargo xtask test installs it"]
fn tee_verifier_accepts_our_documents_with_our_root_alone() {
    TEE_VERIFIER.accepts_ours_with_our_root_alone();
}

mod running_enclave {
    use super::{EPSILON_ATTESTATION_VERIFIER, NSM_NITRO_ENCLAVE_UTILS, TEE_VERIFIER};

    #[test]
    #[ignore = "needs the Rust verifier and documents; cargo xtask test nsm has both"]
    fn documents_pass_nsm_nitro_enclave_utils_with_our_root_alone() {
        NSM_NITRO_ENCLAVE_UTILS.accepts_a_running_enclaves();
    }

    #[test]
    #[ignore = "needs the Python verifier and documents; cargo xtask test nsm has both"]
    fn documents_pass_epsilon_attestation_verifier_with_our_root_alone() {
        EPSILON_ATTESTATION_VERIFIER.accepts_a_running_enclaves();
    }

    #[test]
    #[ignore = "needs the JavaScript verifier and documents; cargo xtask test nsm has both"]
    fn documents_pass_tee_verifier_with_our_root_alone() {
        TEE_VERIFIER.accepts_a_running_enclaves();
    }
}
