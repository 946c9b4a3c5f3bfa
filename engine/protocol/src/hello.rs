//! The first frame of both sides: who speaks, and which version.
//!
//! Its encoding never changes, so that any two releases can at least tell each other which of them is
//! too old.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// The version of everything in this crate that is sent. It grows with every change that an older
/// side would misunderstand; additions that it may ignore do not count.
pub const PROTOCOL_VERSION: u32 = 2;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Always `orchestrator`.
    pub product: String,
    /// [`PROTOCOL_VERSION`] of the speaker.
    pub protocol: u32,
    /// Its release.
    pub version: String,
    /// Optional abilities that the other side may use.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Hello {
    /// This release's hello.
    pub fn ours() -> Self {
        Self {
            product: "orchestrator".into(),
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            features: Vec::new(),
        }
    }

    /// Whether `self`, as `this`, can talk to `other`, or which of the two must be updated.
    pub fn check(&self, this: Side, other: &Hello) -> Result<(), Error> {
        if other.product != self.product {
            return Err(Error::new(
                ErrorCode::VersionMismatch,
                format!("the other side of the socket is '{}', not an orchestrator", other.product),
            ));
        }
        if other.protocol == self.protocol {
            return Ok(());
        }
        let old = if other.protocol < self.protocol { this.other() } else { this };
        let advice = match old {
            Side::Client => {
                "update the plugin: install the release of the engine, then `plugin add` it again"
            }
            Side::Engine => {
                "update the engine: `orchestrator stop`, install the release of the plugin, start it again"
            }
        };
        Err(Error::new(
            ErrorCode::VersionMismatch,
            format!(
                "the {} is too old: it speaks protocol {}, the {} speaks protocol {} (releases {} and {})",
                old.as_str(),
                other.protocol.min(self.protocol),
                old.other().as_str(),
                other.protocol.max(self.protocol),
                if old == this { &self.version } else { &other.version },
                if old == this { &other.version } else { &self.version },
            ),
        )
        .with_help(advice))
    }
}

/// Which end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The plugin, or another program that asks.
    Client,
    /// The engine.
    Engine,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Engine,
            Self::Engine => Self::Client,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Engine => "engine",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_the_side_to_update_whoever_notices() {
        let new = Hello { protocol: 2, version: "2.0.0".into(), ..Hello::ours() };
        let old = Hello { protocol: 1, version: "1.0.0".into(), ..Hello::ours() };
        for (ours, side, theirs, culprit) in [
            (&new, Side::Client, &old, "the engine is too old"),
            (&old, Side::Client, &new, "the client is too old"),
            (&new, Side::Engine, &old, "the client is too old"),
            (&old, Side::Engine, &new, "the engine is too old"),
        ] {
            let message = ours.check(side, theirs).map_err(|error| error.message);
            assert!(message.as_ref().is_err_and(|text| text.starts_with(culprit)), "{message:?}");
        }
        assert_eq!(new.check(Side::Client, &new), Ok(()));
    }
}
