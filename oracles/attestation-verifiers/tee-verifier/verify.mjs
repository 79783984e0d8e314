// verify.mjs DOCUMENT ROOT MILLISECONDS: whether @0xsequence/tee-verifier accepts an attestation document.
//
// The arguments and exit codes are those of all verifiers, in the README of `oracles`. The library is made for browsers and
// reaches their cryptography through `window`. It verifies the chain up to the first certificate of the document's own
// bundle, whose fingerprint its callers compare with that of the root they trust, as it is done here.

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'

const ACCEPTED = 0
const REFUSED = 1
const UNKNOWN = 2

// Before the library looks for it, so not a static import.
globalThis.window = globalThis
const { SignedAttestation } = await import('@0xsequence/tee-verifier')

function fingerprint(root) {
  return new X509Certificate(root).fingerprint256.replaceAll(':', '').toLowerCase()
}

/** Why the document is refused; undefined if it is not. */
async function refusal(document, root, time) {
  let attestation
  try {
    attestation = SignedAttestation.fromDocument(document.toString('base64'))
  } catch (error) {
    return `document: ${error}`
  }
  if (!(await attestation.verifyRootOfTrust(time))) return 'certificate chain'
  if ((await attestation.rootCertFingerprint()) !== root) return 'root'
  if (!(await attestation.verifySignature())) return 'signature'
}

async function main([document, root, millis]) {
  const time = new Date(Number(millis))
  if (Number.isNaN(time.getTime())) throw new Error(`not a time: ${millis}`)
  const reason = await refusal(readFileSync(document), fingerprint(readFileSync(root)), time)
  if (reason !== undefined) console.error(reason)
  return reason === undefined ? ACCEPTED : REFUSED
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(error)
  process.exitCode = UNKNOWN
}
