//! Parts of requests that have the same fields here as in the protocol, and are promises nevertheless: a
//! field that is added there and forgotten here does not compile.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use orchestrator_protocol::environment as protocol;
use serde_json::Value;

/// The same in the words of the other side.
pub(crate) trait Same<T> {
    fn same(self) -> T;
}

macro_rules! already_the_same {
    ($($type:ty),*) => { $(impl Same<$type> for $type { fn same(self) -> $type { self } })* };
}

already_the_same!(bool, u64, String, Ipv4Addr, Value, protocol::DiskPolicy);

impl<A: Same<B>, B> Same<Option<B>> for Option<A> {
    fn same(self) -> Option<B> {
        self.map(A::same)
    }
}

impl<A: Same<B>, B> Same<Vec<B>> for Vec<A> {
    fn same(self) -> Vec<B> {
        self.into_iter().map(A::same).collect()
    }
}

impl<A: Same<B>, B> Same<BTreeMap<String, B>> for BTreeMap<String, A> {
    fn same(self) -> BTreeMap<String, B> {
        self.into_iter().map(|(name, value)| (name, value.same())).collect()
    }
}

/// A record that has the protocol's fields, no more and no fewer.
macro_rules! same_fields {
    ($(#[doc = $doc:literal])* $name:ident as $schema:ident of $foreign:path {
        $($(#[$attribute:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        #[schema(as = $schema)]
        pub struct $name { $($(#[$attribute])* $field: $type,)* }

        impl Same<$foreign> for $name {
            fn same(self) -> $foreign {
                let Self { $($field),* } = self;
                $foreign { $($field: $field.same()),* }
            }
        }

        impl Same<$name> for $foreign {
            fn same(self) -> $name {
                let Self { $($field),* } = self;
                $name { $($field: $field.same()),* }
            }
        }
    };
}

pub(crate) use same_fields;

/// The default of what is done unless somebody says no.
pub(crate) fn yes() -> bool {
    true
}
