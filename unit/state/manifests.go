package state

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"gprovision/model/signature"
)

// ManifestsFile records which manifests were used.
const ManifestsFile = "state/manifests.json" // Manifests

// maxProducts limits how many products a unit remembers manifests of.
const maxProducts = 64

// Manifests holds the newest used manifest for each product, so that older ones can be refused. The zero value holds
// none.
type Manifests struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// Newest maps a product to the highest serial number used. Both are as in the manifest's signature.
	Newest map[string]uint64 `json:"newest"`
}

// ReadManifests returns the manifests that the unit remembers. If the file is missing, there are none, and no error.
func (v *Volume) ReadManifests() (Manifests, error) {
	b, err := v.read(ManifestsFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifests{}, nil
	}
	if err != nil {
		return Manifests{}, err
	}
	return parse[Manifests](ManifestsFile, b)
}

// WriteManifests replaces what ReadManifests returns.
func (v *Volume) WriteManifests(m Manifests) error {
	m.Version = Version
	return v.writeJSON(ManifestsFile, m, m.validate(), 0o600)
}

// Check returns an error if a manifest is older than one already used for the product. product and serial are as in
// its signature. If none was used for the product, any serial passes, whatever its form.
func (m Manifests) Check(product, serial string) error {
	newest, ok := m.Newest[product]
	if !ok {
		return nil
	}
	n, err := signature.ParseSerial(serial)
	if err != nil {
		return err
	}
	if n < newest {
		return fmt.Errorf("the manifest of %s has the serial number %d, and this unit has used %d: to go back, sign the old content with a higher one", product, n, newest)
	}
	return nil
}

// Used returns m with one more used manifest. It does not remember a serial that is no whole number, nor more than
// maxProducts products.
func (m Manifests) Used(product, serial string) Manifests {
	n, err := signature.ParseSerial(serial)
	if _, known := m.Newest[product]; err != nil || !known && len(m.Newest) >= maxProducts || checkProduct(product) != nil {
		return m
	}
	m.Newest = maps.Clone(m.Newest)
	if m.Newest == nil {
		m.Newest = map[string]uint64{}
	}
	m.Newest[product] = max(m.Newest[product], n)
	return m
}

func (m Manifests) validate() error {
	if len(m.Newest) > maxProducts {
		return fmt.Errorf("newest has %d products, want at most %d", len(m.Newest), maxProducts)
	}
	for product := range m.Newest {
		if err := checkProduct(product); err != nil {
			return err
		}
	}
	return nil
}

func checkProduct(product string) error {
	if product == "" {
		return errors.New("a product has no name")
	}
	return printable("a product", product, 128)
}
