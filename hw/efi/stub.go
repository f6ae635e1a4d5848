package efi

import (
	"fmt"
	"strings"
)

// Loader is the vendor GUID of the variables that boot loaders and EFI stubs leave for the system.
// Source: systemd.io/BOOT_LOADER_INTERFACE.
const Loader = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// StartedFrom returns the partition GUID, in lower case, of the ESP from which the EFI stub of a unified kernel image was started.
// The error is fs.ErrNotExist if the kernel was not started by such a stub.
func (v *Vars) StartedFrom() (string, error) {
	_, b, err := v.Get("LoaderDevicePartUUID", Loader)
	if err != nil {
		return "", err
	}
	id := strings.ToLower(decodeText(b))
	if len(id) != 36 {
		return "", fmt.Errorf("read variable LoaderDevicePartUUID: %d bytes", len(b))
	}
	return id, nil
}
