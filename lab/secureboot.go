package lab

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"os"
	"unicode/utf16"

	"gprovision/hw/partition"
)

// SecureBootKey is what a company signs its boot artifacts with, for UEFI Secure Boot.
type SecureBootKey struct {
	Signer      crypto.Signer
	Certificate *x509.Certificate
}

// The variable store of OVMF (EDK2, MdeModulePkg/Include/Guid/VariableFormat.h), little-endian. It begins behind the header of
// the firmware volume, whose length is the 16-bit number at 48.
const (
	volumeHeaderLen    = 48
	storeHeader        = 28
	variableStart      = 0x55aa
	variableAdded      = 0x3f
	variableAttributes = 0x27 // non-volatile, boot services, run time, time-based authenticated
)

// enrol makes a certificate (DER) the PK, the KEK and the only content of db in path, a file of OVMF's variables that has none
// yet. With a PK the firmware is in user mode: Secure Boot is on.
func enrol(path string, certificate []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("enrol certificate: %w", err)
	}
	const store, global, database = "aaf32c78-947b-439a-a180-2e144ec37792", "8be4df61-93ca-11d2-aa0d-00e098032b8c", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	le := binary.LittleEndian
	at := 0
	if len(b) > volumeHeaderLen+2 {
		at = int(le.Uint16(b[volumeHeaderLen:]))
	}
	if len(b) < at+storeHeader || !bytes.HasPrefix(b[at:], guid(store)) {
		return fmt.Errorf("enrol certificate: %s holds no authenticated variables", path)
	}
	end := min(len(b), at+int(le.Uint32(b[at+16:])))
	at += storeHeader
	// A signature list with one certificate (UEFI 2.10, 32.4.1); its owner is anybody.
	list := le.AppendUint32(guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"), uint32(28+16+len(certificate)))
	list = le.AppendUint32(le.AppendUint32(list, 0), uint32(16+len(certificate)))
	list = append(append(list, guid(global)...), certificate...)
	for _, v := range []struct{ name, vendor string }{{"PK", global}, {"KEK", global}, {"db", database}} {
		var name []byte
		for _, c := range utf16.Encode([]rune(v.name + "\x00")) {
			name = le.AppendUint16(name, c)
		}
		r := le.AppendUint32([]byte{variableStart & 0xff, variableStart >> 8, variableAdded, 0}, variableAttributes)
		r = append(r, make([]byte, 8)...)                                              // count, not used
		r = append(le.AppendUint16(r, 2026), 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // when it was written
		r = le.AppendUint32(r, 0)                                                      // index of a public key, not used
		r = le.AppendUint32(le.AppendUint32(r, uint32(len(name))), uint32(len(list)))
		r = append(append(append(r, guid(v.vendor)...), name...), list...)
		if at+len(r) > end || b[at] != 0xff {
			return fmt.Errorf("enrol certificate: no room in %s", path)
		}
		at = (at + copy(b[at:], r) + 3) &^ 3
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("enrol certificate: %w", err)
	}
	return nil
}

// guid returns the bytes of a GUID that is a constant here.
func guid(text string) []byte {
	g, err := partition.ParseGUID(text)
	if err != nil {
		panic(err)
	}
	return g[:]
}
