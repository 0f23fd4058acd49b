"""Images: files of any kind, packed stores, geometry on the host and photometry on the device."""
