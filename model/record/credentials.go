package record

import (
	"encoding/json"
	"fmt"

	"gprovision/model/secret"
)

// MaxIPMIPassword is the largest length of the IPMI password: IPMI 1.5 has 16 bytes for it.
const MaxIPMIPassword = 16

// Credentials are the passwords of one unit, made by the server for this unit alone. Plain JSON encoding and printing hide
// them; Wire gives the body of the answer to POST /v1/credentials, ParseCredentials reads it.
type Credentials struct {
	// Generation counts the credentials made for this unit, from 1. It is what the unit confirms.
	Generation uint64 `json:"generation"`
	// OS is the password of the account admin.
	OS secret.Secret `json:"os"`
	// BIOS is the password of the firmware's setup.
	BIOS secret.Secret `json:"bios"`
	// IPMI is the password of the management controller, at most MaxIPMIPassword bytes.
	IPMI secret.Secret `json:"ipmi"`
}

// wireCredentials is Credentials in clear.
type wireCredentials struct {
	Generation uint64 `json:"generation"`
	OS         string `json:"os"`
	BIOS       string `json:"bios"`
	IPMI       string `json:"ipmi"`
}

// Wire returns c as JSON with its passwords in clear: for an encrypted channel to the unit, or for encryption.
func (c Credentials) Wire() ([]byte, error) {
	return json.Marshal(wireCredentials{c.Generation, c.OS.Reveal(), c.BIOS.Reveal(), c.IPMI.Reveal()})
}

// ParseCredentials reads what Wire wrote. Its errors never quote the input.
func ParseCredentials(b []byte) (Credentials, error) {
	var w wireCredentials
	if err := json.Unmarshal(b, &w); err != nil {
		return Credentials{}, fmt.Errorf("parse credentials: not valid JSON of the expected form")
	}
	c := Credentials{w.Generation, secret.Secret(w.OS), secret.Secret(w.BIOS), secret.Secret(w.IPMI)}
	return c, c.Validate()
}

// Validate returns an error unless c is complete: a generation, three passwords of printable ASCII, lengths within their limits.
func (c Credentials) Validate() error {
	if c.Generation == 0 {
		return fmt.Errorf("credentials have no generation")
	}
	for name, s := range map[string]secret.Secret{"os": c.OS, "bios": c.BIOS, "ipmi": c.IPMI} {
		if s.Empty() || len(s) > 128 || !printable(s.Reveal()) {
			return fmt.Errorf("credentials: password %q is not 1 to 128 characters of printable ASCII", name)
		}
	}
	if len(c.IPMI) > MaxIPMIPassword {
		return fmt.Errorf("credentials: the IPMI password has %d bytes, want at most %d", len(c.IPMI), MaxIPMIPassword)
	}
	return nil
}
