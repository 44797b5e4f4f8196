//! The listeners: callbacks from the gateway, the admin API.
