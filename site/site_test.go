package site

import (
	"reflect"
	"testing"

	"gprovision/model/naming"
)

// TestNames: what an artifact chooses goes before the Site's, and what it leaves out is the Site's. No name of the file is forgotten.
func TestNames(t *testing.T) {
	stock := Stock().Names
	if err := stock.Chosen().Validate(); err != nil {
		t.Errorf("the stock Site: %v", err)
	}
	if got := stock.Of(naming.Names{Version: 1}); got != stock {
		t.Errorf("nothing is chosen: %+v", got)
	}
	all := naming.Names{Version: 1, ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "R", PrimaryLabel: "P", HostPrefix: "a-"}
	got := stock.Of(all)
	if got.Chosen() != all || got.Mark != stock.Mark || got.BootFile != stock.BootFile || got.ConfDir != stock.ConfDir {
		t.Errorf("all is chosen: %+v", got)
	}
	for i, v := 0, reflect.ValueOf(all); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not tested", v.Type().Field(i).Name)
		}
	}
}
