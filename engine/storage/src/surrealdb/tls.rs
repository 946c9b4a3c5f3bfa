//! Encryption on the way to a server: whom to trust.
//!
//! Trusted are the certificates that the system trusts, or those that the environment variables
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name, which is where an authority of one's own is put.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto};

/// How to speak to a server; `None` where its address asks for no encryption.
///
/// # Errors
/// Why no certificate can be trusted.
pub(super) fn config(url: &str) -> Result<Option<ClientConfig>, String> {
    if !["wss://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(None);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (known, _) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "there is no certificate of an authority to trust: install ca-certificates, or name a file with \
             SSL_CERT_FILE{}{}",
            if errors.is_empty() { "" } else { ": " },
            errors.join("; ")
        ));
    }
    // Named, because a process can have more than one.
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Some(builder.with_root_certificates(roots).with_no_client_auth()))
}
