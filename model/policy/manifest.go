package policy

import (
	"errors"
	"fmt"
	"strings"

	"gprovision/model/signature"
)

// validateManifest returns an error unless what p wants of manifests can be had: both are in the signature, so they need one.
func (p Policy) validateManifest() error {
	if n := len(p.ManifestProduct); n > 64 {
		return fmt.Errorf("policy manifestProduct has %d characters, want at most 64", n)
	}
	if strings.ContainsFunc(p.ManifestProduct, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(p.ManifestProduct) != p.ManifestProduct {
		return fmt.Errorf("policy manifestProduct is %q, want printable ASCII without spaces around it", p.ManifestProduct)
	}
	if len(p.Keys) == 0 && (p.ManifestProduct != "" || p.OldestManifest != 0) {
		return errors.New("policy manifestProduct and oldestManifest are held against signatures of manifests, and the policy has no keys")
	}
	return nil
}

// CheckManifest says why a manifest may not be obeyed whose signature has a trusted comment. The signature was verified. Where p wants
// a product or a serial number, a comment that does not name them is refused.
func (p Policy) CheckManifest(trusted string) error {
	if p.ManifestProduct == "" && p.OldestManifest == 0 {
		return nil
	}
	product, text, err := signature.ParseManifestComment(trusted)
	if err != nil {
		return err
	}
	if p.ManifestProduct != "" && product != p.ManifestProduct {
		return fmt.Errorf("the manifest is for the product %q, and the policy wants %q", product, p.ManifestProduct)
	}
	if p.OldestManifest == 0 {
		return nil
	}
	serial, err := signature.ParseSerial(text)
	if err != nil {
		return err
	}
	if serial < p.OldestManifest {
		return fmt.Errorf("the manifest has the serial number %d, and the policy wants %d or a newer one: sign it again with a higher one", serial, p.OldestManifest)
	}
	return nil
}
