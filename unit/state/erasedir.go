package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gprovision/hw/durable"
)

// EraseDir holds what an erase goes on from after a power cut, and its certificate. It is secret: who knows which places are looked at
// knows where data could hide.
const EraseDir = "erase"

// CertificateFile is the certificate of the last erase, in EraseDir. What belongs to it has its name and a suffix.
const CertificateFile = "certificate.json"

// MaxEraseFile is the largest size of a file in EraseDir, in bytes.
const MaxEraseFile = 4 << 20

// ReadEraseFile reads a file of EraseDir.
func ReadEraseFile(v *Volume, name string) ([]byte, error) {
	return v.read(EraseDir+"/"+name, MaxEraseFile)
}

// WriteEraseFile replaces a file of EraseDir.
func WriteEraseFile(v *Volume, name string, b []byte) error {
	if len(b) > MaxEraseFile {
		return fmt.Errorf("write %s/%s: it has %d bytes, at most %d", EraseDir, name, len(b), MaxEraseFile)
	}
	return v.write(EraseDir+"/"+name, b, 0o600)
}

// RemoveEraseFile removes a file of EraseDir. That it is not there is no error.
func RemoveEraseFile(v *Volume, name string) error {
	return v.inside(func(r *os.Root) error { return durable.RemoveIn(r, EraseDir+"/"+name) })
}

// Forget removes from the recovery volume what the use of the unit has left there: logs, history, saved network files, records that the
// server does not have, the last medium, and restore data unless those are marked to stay. It returns how many
// names are gone.
func Forget(v *Volume) (n int, err error) {
	gone := []string{BadRequestFile, MediumFile}
	if d, err := v.ReadRestoreData(); err != nil || !d.Preserve {
		gone = append(gone, RestoreDataFile)
	}
	err = v.inside(func(r *os.Root) error {
		for _, dir := range []string{LogDir, QueueDir} {
			list, err := fs.ReadDir(r.FS(), dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("forget %s: %w", dir, err)
			}
			for _, e := range list {
				if err := r.RemoveAll(dir + "/" + e.Name()); err != nil {
					return fmt.Errorf("forget %s: %w", dir, err)
				}
				n++
			}
			if err := durable.SyncIn(r, dir); err != nil {
				return err
			}
		}
		for _, name := range gone {
			_, there := r.Lstat(name)
			if err := durable.RemoveIn(r, name); err != nil {
				return err
			}
			if there == nil {
				n++
			}
		}
		return nil
	})
	return n, err
}
