//! `explain`: every number, on standard error, never a failure.

use api::ErrorCode;

use crate::program::Program;

#[test]
fn every_error_has_an_explanation_of_its_own() {
    let mut seen = Vec::new();
    for code in ErrorCode::all() {
        let finished = Program::new(["explain", "--error-code", &code.to_string()]).run();

        assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{code}");
        let heading = format!("[ {code} ] {}. ", code.title());
        let explained = finished.stderr.strip_prefix(&heading).expect(&finished.stderr);
        let (explanation, address) = explained.split_once("\n\n").unwrap();
        assert!(explanation.ends_with('.'), "{code}: {explanation}");
        assert!(address.ends_with(&format!("#{code}\n")), "{code}: {address}");
        seen.push(explained.to_owned());
    }
    assert_eq!(seen.len(), 61);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 61, "none is like another");
}

#[test]
fn what_is_no_code_is_said_so() {
    for unknown in ["E61", "26", "e26", "", "E-1"] {
        let finished = Program::new(["explain", "--error-code", unknown]).run();

        assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{unknown}");
        let beginning = format!("No such error code {unknown}.");
        assert!(finished.stderr.starts_with(&beginning), "{finished:#?}");
    }
}
