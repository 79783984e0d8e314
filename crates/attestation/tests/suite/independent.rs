//! Documents of ours, judged by an implementation that is not: `oracles/attestation-verifier`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use attestation::{MapForm, Timestamp, TrustAnchor};

use crate::authority::{Authority, NOW};
use crate::vectors::{GENUINE, aws_root, own_time};

/// Names the program that `cargo build --release` in `oracles/attestation-verifier` makes.
const VARIABLE: &str = "ATTESTATION_VERIFIER_ORACLE";

fn accepted(directory: &Path, document: &[u8], root: &TrustAnchor, at: Timestamp) -> bool {
    let (document_path, root_path) = (directory.join("document"), directory.join("root"));
    std::fs::write(&document_path, document).unwrap();
    std::fs::write(&root_path, root.certificate().as_der()).unwrap();
    let program = std::env::var_os(VARIABLE).unwrap_or_else(|| "attestation-verifier".into());
    let output = Command::new(program)
        .arg(document_path)
        .arg(root_path)
        .arg(at.as_millis().to_string())
        .output()
        .unwrap();
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{output:?}"),
    }
}

#[test]
#[ignore = "needs oracles/attestation-verifier, named by ATTESTATION_VERIFIER_ORACLE"]
fn our_documents_pass_with_our_root_alone() {
    let directory = tempfile::tempdir().unwrap();
    let accepted = |document: &[u8], root: &TrustAnchor, at| accepted(directory.path(), document, root, at);
    for (_, document) in GENUINE {
        assert!(accepted(document, &aws_root(), own_time(document)));
    }

    let authority = Authority::new(1);
    let mut content = authority.content();
    content.public_key = Some(vec![1; 1024]);
    content.user_data = Some(vec![2; 1024]);
    content.nonce = Some(vec![3; 1024]);
    for content in [authority.content(), content] {
        for form in [MapForm::Definite, MapForm::Indefinite] {
            let document = authority.write_as(&content, form);
            assert!(accepted(&document, &authority.root(), NOW), "{form:?}");
            assert!(!accepted(&document, &aws_root(), NOW), "{form:?}");
            assert!(!accepted(&document, &Authority::new(2).root(), NOW), "{form:?}");
            let late = NOW.after(Duration::from_hours(4));
            assert!(!accepted(&document, &authority.root(), late), "{form:?}");
            let mut forged = document.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(!accepted(&forged, &authority.root(), NOW), "{form:?}");
        }
    }
}
