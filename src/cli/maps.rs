//! What `status` says of the maps: how full they are, and what memory they take.

use serde_json::{Value, json};

use super::status::bytes;
use super::{CliError, Kernel};
use crate::kernel::Table;
use crate::sizing;
use crate::store::Live;

/// The tables that people fill, and what they call them.
const SHOWN: [(Table, &str); 3] =
    [(Table::Routes, "routes"), (Table::Tunnels, "tunnels"), (Table::Interfaces, "interfaces")];

/// Use of the maps.
pub struct Maps {
    memory: u64,
    /// By name: entries in use, and room.
    tables: Vec<(&'static str, usize, u32)>,
}

impl Maps {
    pub fn look(kernel: &Kernel, live: &Live) -> Result<Self, CliError> {
        let sizes = live.state.data_plane.map(|data_plane| data_plane.sizes).unwrap_or_default();
        let tables = SHOWN.map(|(table, name)| (name, sizing::used(table, &live.state), sizes[table]));
        Ok(Self { memory: kernel.bpf.memory()?, tables: tables.into() })
    }

    /// As a line.
    pub fn line(&self) -> String {
        let tables: Vec<String> =
            self.tables.iter().map(|(name, used, room)| format!("{used} of {room} {name}")).collect();
        format!("maps: {}, {}\n", bytes(self.memory), tables.join(", "))
    }

    pub fn json(&self) -> Value {
        let tables: serde_json::Map<String, Value> = self
            .tables
            .iter()
            .map(|(name, used, room)| ((*name).to_owned(), json!({ "used": used, "room": room })))
            .collect();
        json!({ "bytes": self.memory, "tables": tables })
    }
}
