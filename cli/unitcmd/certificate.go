package unitcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gprovision/hw/durable"
	"gprovision/model/erasure"
	"gprovision/model/signature"
	"gprovision/unit/state"
)

// EraseCertificateCmd gives out the certificate of the last erase.
type EraseCertificateCmd struct {
	Out string `short:"o" type:"path" placeholder:"FILE" help:"Copy it to FILE, and its signature to FILE.minisig (default: print it)."`
}

// Help returns examples.
func (*EraseCertificateCmd) Help() string {
	return `The certificate stays on the recovery volume until the next erase. Whoever has the file and its signature checks both offline, by
'gprov erase verify'. A file that is there is not replaced.

Examples:
  sudo gprov-unit erase-certificate | less
  sudo gprov-unit erase-certificate --out /media/stick/SN-0001.json`
}

// Run prints or copies the certificate.
func (e *EraseCertificateCmd) Run(c *Context) error {
	if err := c.needRoot(); err != nil {
		return err
	}
	return c.view(func(v *state.Volume) error {
		file, err := state.ReadEraseFile(v, state.CertificateFile)
		if missing(err) {
			return &hinted{errors.New("there is no certificate"), "ask for an erase with gprov-unit reset --erase"}
		}
		if err != nil {
			return err
		}
		if e.Out == "" {
			_, err := c.Stdout.Write(file)
			return err
		}
		// The certificate last: who has it has all.
		for _, suffix := range []string{erasure.ProofSuffix, erasure.VoucherSuffix, signature.Suffix, ""} {
			b, err := state.ReadEraseFile(v, state.CertificateFile+suffix)
			if missing(err) && suffix != signature.Suffix {
				continue
			}
			if err == nil {
				err = putNew(e.Out+suffix, b)
			}
			if err != nil {
				return err
			}
		}
		fmt.Fprintf(c.Stdout, "%s and its signature are written.\n", e.Out)
		return nil
	})
}

// putNew writes a file that is not there yet, durably: the stick may be pulled out.
func putNew(name string, content []byte) error {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s is there already", name))
	}
	return durable.Write(name, content, 0o644)
}
