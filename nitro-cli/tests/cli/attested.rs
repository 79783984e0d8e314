//! An attestation document that was made just now, and the root it ends in.

use std::time::{SystemTime, UNIX_EPOCH};

use attestation::Signer;
use attestation::chain::{CaBundle, Issuer, ModuleId, Region, issue_root};
use attestation::{AttestationContent, MapForm, SoftwareKey, Timestamp, write};
use rand_core::UnwrapErr;

/// A document and its root.
pub(crate) struct Attested {
    pub(crate) document: Vec<u8>,
    /// In PEM.
    pub(crate) root: Vec<u8>,
}

/// A document in which PCR `n` is 48 times `n + 1`.
pub(crate) fn just_now(nonce: &[u8]) -> Attested {
    let rng = &mut UnwrapErr(getrandom::SysRng);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_secs(now.as_secs());
    let keys: [SoftwareKey; 5] = std::array::from_fn(|_| SoftwareKey::generate(rng));
    let [root_key, regional_key, zonal_key, host_key, leaf_key] = &keys;
    let region: Region = "eu-central-1".parse().unwrap();
    let module = ModuleId {
        instance: "i-0bee92034f3d60691".parse().unwrap(),
        slot_uid: 1,
    };
    let root = issue_root(root_key, now, rng).unwrap();
    let below = |certificate, key| Issuer::new(certificate, key).unwrap();
    let regional = below(&root, root_key)
        .issue_regional(&region, &regional_key.public_key(), now, rng)
        .unwrap();
    let zonal = below(&regional, regional_key)
        .issue_zonal(&region, &zonal_key.public_key(), now, rng)
        .unwrap();
    let host = below(&zonal, zonal_key)
        .issue_host(&module.instance, &region, &host_key.public_key(), now, rng)
        .unwrap();
    let leaf = below(&host, host_key)
        .issue_enclave(&module, &region, &leaf_key.public_key(), now)
        .unwrap();
    let content = AttestationContent {
        module_id: module.to_string(),
        timestamp: now,
        pcrs: (0..16).map(|index| (index, [index + 1; 48])).collect(),
        public_key: None,
        user_data: None,
        nonce: Some(nonce.to_vec()),
    };
    let root_pem = root.to_pem().unwrap();
    let bundle = CaBundle::new(vec![root, regional, zonal, host], now).unwrap();
    Attested {
        document: write(&content, &leaf, &bundle, leaf_key, MapForm::Definite).unwrap(),
        root: root_pem.into_bytes(),
    }
}
