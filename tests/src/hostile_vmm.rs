//! What the suites and `hostile-vmm` have agreed on.

/// What it is to do: one word.
pub const ORDERS: &str = "/tmp/hostile-vmm.orders";

/// What it has learnt, a line each.
pub const FINDINGS: &str = "/tmp/hostile-vmm.findings";

/// Each byte of what it says to have measured, in hexadecimal.
pub const MEASURED: &str = "01";

/// `{"DescribePCR": {"index": 0}}`
pub fn describe_pcr_0() -> Vec<u8> {
    b"\xa1\x6bDescribePCR\xa1\x65index\x00".to_vec()
}

/// `{"Attestation": {"user_data": null, "nonce": null, "public_key": null}}`
pub fn attestation() -> Vec<u8> {
    b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\xf6\x6apublic_key\xf6".to_vec()
}
