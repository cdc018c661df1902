//! Tokens of clients for tests, as an issuer makes them, and the keys that verify them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The `iss` of the tokens.
pub const ISSUER: &str = "https://issuer.test";
/// The `aud` of the tokens.
pub const AUDIENCE: &str = "agents";

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A secret that issuer and proxy share: quick to sign, so for tests that need many tokens.
    Hs256,
    /// A key pair on the curve P-256.
    Es256,
    /// An RSA key pair of 2048 bits.
    Rs256,
}

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    algorithm: Algorithm,
    /// The secret in bytes, or the file with the private key.
    secret: Vec<u8>,
    key: PathBuf,
    /// The public key as a member of a key set.
    public: Value,
}

impl Issuer {
    /// An issuer with a new key in `directory`.
    ///
    /// # Errors
    /// If the command openssl is missing or fails.
    pub fn new(directory: &Path, algorithm: Algorithm) -> Result<Self> {
        let key = directory.join(format!("{algorithm:?}.key"));
        let (secret, public) = match algorithm {
            Algorithm::Hs256 => {
                let secret = openssl(&["rand", "32"], &[])?;
                let public = json!({"kty": "oct", "k": encoded(&secret)});
                (secret, public)
            }
            Algorithm::Es256 => {
                make_key(&key, &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
                let der = public_key(&key)?;
                // The end of it is the point: a byte that says that it is not compressed, and two numbers of 32 bytes.
                let point = der.last_chunk::<64>().context("the public key is too short")?;
                let (x, y) = point.split_at(32);
                (Vec::new(), json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)}))
            }
            Algorithm::Rs256 => {
                make_key(&key, &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?;
                let der = public_key(&key)?;
                // The end of it is the modulus of 256 bytes, and the exponent 65537 as an integer of 3 bytes.
                let end = der.last_chunk::<261>().context("the public key is too short")?;
                let (modulus, exponent) = end.split_at(256);
                ensure!(exponent == [2, 3, 1, 0, 1], "the public exponent is not 65537");
                (Vec::new(), json!({"kty": "RSA", "n": encoded(modulus), "e": "AQAB"}))
            }
        };
        Ok(Self { algorithm, secret, key, public })
    }

    /// Writes the key set into a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_key_set(&self, path: &Path) -> Result<()> {
        let mut key = self.public.clone();
        if let Value::Object(members) = &mut key {
            members.extend([("kid".to_owned(), "one".into()), ("use".to_owned(), "sig".into())]);
            members.insert("alg".to_owned(), self.name().into());
        }
        std::fs::write(path, json!({"keys": [key]}).to_string()).with_context(|| format!("writing {}", path.display()))
    }

    /// The settings of a proxy that asks for tokens of this issuer. The key set is written into `directory`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn settings(&self, directory: &Path) -> Result<Vec<(&'static str, String)>> {
        let keys = directory.join(format!("{:?}.json", self.algorithm));
        self.write_key_set(&keys)?;
        Ok(vec![
            ("PIXELL_JWT_ISSUER", ISSUER.to_owned()),
            ("PIXELL_JWT_AUDIENCES", AUDIENCE.to_owned()),
            ("PIXELL_JWKS_FILE", keys.display().to_string()),
        ])
    }

    /// A token of a client, valid for a day, with more claims.
    ///
    /// # Errors
    /// If the command openssl fails.
    pub fn token(&self, subject: &str, more: &Value) -> Result<String> {
        let expires = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400;
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": expires});
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more.clone());
        }
        let head = json!({"alg": self.name(), "kid": "one", "typ": "JWT"});
        let signed = format!("{}.{}", encoded(head.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", encoded(&signature)))
    }

    const fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Hs256 => "HS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }

    fn sign(&self, signed: &[u8]) -> Result<Vec<u8>> {
        let by_openssl = || {
            let key = self.key.to_string_lossy();
            openssl(&["dgst", "-sha256", "-sign", &key], signed)
        };
        match self.algorithm {
            Algorithm::Hs256 => Ok(hmac(&self.secret, signed).to_vec()),
            Algorithm::Rs256 => by_openssl(),
            Algorithm::Es256 => numbers(&by_openssl()?).context("the signature has another form"),
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// HMAC with SHA-256 (RFC 2104), for a key of 64 bytes at most.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

/// The two numbers of an ECDSA signature, 32 bytes each, from its form in DER: a sequence of two integers, of up to 33 bytes.
fn numbers(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.strip_prefix(&[0x30])?.split_first()?.1;
    let mut signature = Vec::with_capacity(64);
    for _ in 0..2 {
        let (length, after) = rest.strip_prefix(&[2])?.split_first()?;
        let (number, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let digits = number.get(start..)?;
        signature.resize(signature.len() + 32_usize.checked_sub(digits.len())?, 0);
        signature.extend(digits);
    }
    Some(signature)
}

fn make_key(file: &Path, kind: &[&str]) -> Result<()> {
    let file = file.to_string_lossy();
    openssl(&[&["genpkey", "-out", &file, "-algorithm"], kind].concat(), &[]).map(drop)
}

fn public_key(file: &Path) -> Result<Vec<u8>> {
    openssl(&["pkey", "-pubout", "-outform", "DER", "-in", &file.to_string_lossy()], &[])
}

/// Runs openssl with this input and returns its output.
fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("openssl is missing: install it (Debian: apt-get install openssl)")?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that reads no input may have closed it.
        let _ = pipe.write_all(input);
    }
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "openssl {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
    Ok(done.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test case of RFC 4231.
    #[test]
    fn the_hash_is_that_of_the_standard() {
        let hash = hmac(&[0x0b; 20], b"Hi There");
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_signature_has_two_numbers_of_32_bytes() {
        let der = [&[0x30, 37, 2, 1, 5, 2, 32][..], &[0x7f; 32]].concat();
        let signature = numbers(&der).unwrap();
        assert_eq!((signature.len(), signature.get(31), signature.get(32)), (64, Some(&5), Some(&0x7f)));
        let der = [&[0x30, 38, 2, 33, 0][..], &[0xff; 32], &[2, 1, 1]].concat();
        assert_eq!(numbers(&der).map(|signature| signature.len()), Some(64));
        assert_eq!(numbers(&[0x30, 3, 2, 9, 1]), None);
    }
}
