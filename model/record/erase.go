package record

import (
	"encoding/json"
	"fmt"
)

// Limits of what is sent about erases, in bytes.
const (
	// MaxDriveState is the largest state of a drive.
	MaxDriveState = 64 << 10
	// maxRun is the length of the name of a run, in hexadecimal digits.
	maxRun = 32
)

// EraseBefore is the body of POST /v1/erases/before: what a drive was before an erase changes anything.
type EraseBefore struct {
	// Run identifies the run of the erase, as in the certificate: 32 lower case hexadecimal digits.
	Run string `json:"run"`
	// Name is the kernel's name of the drive.
	Name string `json:"name"`
	// State is a JSON object: the drive as a certificate has it, before the erase.
	State json.RawMessage `json:"state"`
}

// Validate returns an error unless b can be stored.
func (b EraseBefore) Validate() error {
	if len(b.Run) != maxRun {
		return fmt.Errorf("run %.40q, want %d hexadecimal digits", b.Run, maxRun)
	}
	for _, c := range []byte(b.Run) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return fmt.Errorf("run %q, want %d lower case hexadecimal digits", b.Run, maxRun)
		}
	}
	if b.Name == "" || len(b.Name) > MaxName || !printable(b.Name) {
		return fmt.Errorf("drive %.40q, want a name of at most %d printable characters", b.Name, MaxName)
	}
	var object map[string]json.RawMessage
	if len(b.State) > MaxDriveState || json.Unmarshal(b.State, &object) != nil || object == nil {
		return fmt.Errorf("state of drive %s: want a JSON object of at most %d bytes", b.Name, MaxDriveState)
	}
	return nil
}

// EraseSubmission is the body of POST /v1/erases and POST /v1/erases/submit: the certificate of an erase.
type EraseSubmission struct {
	// Certificate is the file (base64 in JSON), and Signature its detached signature by the unit's key.
	Certificate []byte `json:"certificate"`
	Signature   []byte `json:"signature"`
	// Proof is the proof that a log has it, if the sender got one before.
	Proof []byte `json:"proof,omitempty"`
	// Accepted reports that a person, or the unit's policy, has accepted an outcome that is less than proved.
	Accepted bool `json:"accepted,omitempty"`
}

// EraseReply is the answer to an EraseSubmission, the same each time.
type EraseReply struct {
	// Unit is the unit's name, and Run that of the run.
	Unit string `json:"unit"`
	Run  string `json:"run"`
	// Voucher is the server's statement over the unit's key: the file that belongs beside the certificate (base64 in JSON).
	Voucher []byte `json:"voucher"`
	// Proof is the proof that the server's log has the certificate: the file that belongs beside it.
	Proof []byte `json:"proof"`
	// Ended reports that this erase has ended the unit's life: its key does not speak for it any more.
	Ended bool `json:"ended"`
}

// NoteKeys are the public keys of a server, each as NAME+HASH+KEY.
type NoteKeys struct {
	// Units are those that vouch for keys of units.
	Units []string `json:"units"`
	// Log are those of its logs, the present one first.
	Log []string `json:"log"`
}
