//! The daemon as a service: start, stop, settings, service manager, message bus, files and manuals.

mod bus;
mod dist;
mod lifecycle;
mod manual;
mod service_manager;
