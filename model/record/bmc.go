package record

import "net/netip"

// BMC is the value of FactBMC: what a unit's management controller is and has. What it does not say is missing.
type BMC struct {
	// Firmware is its version, and Aux what the maker adds to that, in hexadecimal.
	Firmware string `json:"firmware"`
	Aux      string `json:"aux,omitempty"`
	// IPMI is the version of its interface.
	IPMI string `json:"ipmi"`
	// Manufacturer is the maker's number (IANA), and Product the maker's own.
	Manufacturer int `json:"manufacturer"`
	Product      int `json:"product"`
	// GUID is its own identifier.
	GUID string `json:"guid,omitempty"`
	// Inventory is what the maker wrote into it about board and product (FRU).
	Inventory BMCInventory `json:"inventory,omitzero"`
	// PowerRestore is what the machine does when its power comes back: "always-off", "previous", "always-on" or "unknown".
	PowerRestore string `json:"powerRestore"`
	// Ports are its ports on networks, and Users the accounts as the port that counts has them.
	Ports []BMCPort `json:"ports"`
	Users []BMCUser `json:"users"`
	// Events is how many events its log has.
	Events int `json:"events"`
}

// BMCInventory is what the maker wrote about board and product.
type BMCInventory struct {
	BoardMaker     string `json:"boardMaker,omitempty"`
	BoardName      string `json:"boardName,omitempty"`
	BoardSerial    string `json:"boardSerial,omitempty"`
	BoardPart      string `json:"boardPart,omitempty"`
	ProductMaker   string `json:"productMaker,omitempty"`
	ProductName    string `json:"productName,omitempty"`
	ProductPart    string `json:"productPart,omitempty"`
	ProductVersion string `json:"productVersion,omitempty"`
	ProductSerial  string `json:"productSerial,omitempty"`
}

// BMCPort is a port of a management controller on a network.
type BMCPort struct {
	Channel byte       `json:"channel"`
	MAC     string     `json:"mac,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
	Mask    netip.Addr `json:"mask,omitzero"`
	Gateway netip.Addr `json:"gateway,omitzero"`
	Source  string     `json:"source"`
	VLAN    int        `json:"vlan,omitempty"`
	Access  string     `json:"access"`
}

// BMCUser is an account of a management controller.
type BMCUser struct {
	ID        byte   `json:"id"`
	Name      string `json:"name,omitempty"`
	Enabled   bool   `json:"enabled"`
	Messaging bool   `json:"messaging"`
	Fixed     bool   `json:"fixed"`
	Privilege string `json:"privilege"`
}

// BMCPassword is the value of FactBMCPassword. InBand and OverLAN are "proved", or begin with "not checked" and say why.
type BMCPassword struct {
	User    string `json:"user"`
	InBand  string `json:"inBand"`
	OverLAN string `json:"overLAN"`
}
