package policy

import (
	"strings"
	"testing"
)

// TestErasePolicy: each value of a key about erases is known or refused, and shown with what it means.
func TestErasePolicy(t *testing.T) {
	for text, want := range map[string]string{
		`"require":"clear"`: "below Clear", `"require":"purge"`: "below Purge", `"require":"any"`: "",
		`"accept":"hold"`: "waits for a person", `"accept":"restore"`: "restores itself", `"accept":"yes"`: "",
		`"verify":"samples"`: "samples of large drives", `"verify":"full"`: "as a whole after", `"verify":"none"`: "",
		`"dco":"keep"`: "is not erased", `"dco":"restore"`: "taken away", `"dco":"RESTORE"`: "",
		`"oneDisk":"ranges"`: "overwritten around", `"oneDisk":"whole"`: "agrees twice", `"oneDisk":"WHOLE"`: "",
		`"recovery":"keep"`: "free space of the recovery volume", `"recovery":"rebuild"`: "made anew", `"recovery":"erase"`: "",
		`"showMinutes":3600`: "3600 min", `"showMinutes":3601`: "", `"showMinutes":-1`: "",
	} {
		p, err := Parse([]byte(`{"version":1,"keys":["x"],"erase":{` + text + `}}`))
		if (err == nil) != (want != "") {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil {
			continue
		}
		found := false
		for _, s := range p.Show() {
			found = found || strings.HasPrefix(s.Key, "erase.") && s.Set && strings.Contains(s.Value+" "+s.Means, want)
		}
		if !found {
			t.Errorf("%s is not shown as %q: %+v", text, want, p.Show())
		}
	}
}
