//! What the store keeps, by its own interface, and by daemons that are killed, copied and migrated.

mod backup;
mod kill9;
mod memory;
mod migrations;
mod model;
mod upkeep;
