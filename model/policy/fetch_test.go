package policy

import (
	"net/url"
	"strings"
	"testing"
)

func TestCheckFetch(t *testing.T) {
	p := Policy{FetchHosts: []string{"updates.example.com", "*.example.org", "10.0.0.1:8443", "[fd00::1]:8443"}}
	plain := p
	plain.FetchPlain = true
	for address, want := range map[string]struct{ secure, plain bool }{
		"https://updates.example.com/a":        {true, true},
		"https://Updates.Example.COM:443/a":    {true, true},
		"https://updates.example.com:8443/a":   {},
		"http://updates.example.com/a":         {false, true},
		"http://updates.example.com:443/a":     {},
		"https://updates.example.com.evil.net": {},
		"https://evil-updates.example.com":     {},
		"https://a.example.org/":               {true, true},
		"https://a.b.example.org/":             {true, true},
		"https://example.org/":                 {},
		"https://evilexample.org/":             {},
		"https://10.0.0.1:8443/":               {true, true},
		"https://10.0.0.1/":                    {},
		"https://10.0.0.11:8443/":              {},
		"https://[fd00::1]:8443/":              {true, true},
		"https://u:p@updates.example.com/":     {},
		"ftp://updates.example.com/":           {},
		"file:///etc/passwd":                   {},
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckFetch(u); (err == nil) != want.secure {
			t.Errorf("%s: %v", address, err)
		}
		if err := plain.CheckFetch(u); (err == nil) != want.plain {
			t.Errorf("%s, http allowed: %v", address, err)
		}
	}
	u, _ := url.Parse("https://updates.example.com/")
	if (Policy{}).CheckFetch(u) == nil {
		t.Error("a policy that names no host lets a unit fetch")
	}
}

func TestParseRefusesSources(t *testing.T) {
	const pin = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for in, want := range map[string]string{
		`"fetchHosts":["https://x"]`:                               "fetchHosts",
		`"fetchHosts":["*"]`:                                       "fetchHosts",
		`"fetchHosts":["X.example"]`:                               "fetchHosts",
		`"fetchHosts":["x:0"]`:                                     "fetchHosts",
		`"fetchPins":["AAAA"]`:                                     "fetchPins",
		`"fetchPins":["sha256//AAAA"]`:                             "fetchPins",
		`"fetchPins":["` + pin + `"],"fetchPlain":true`:            "fetchPlain",
		`"fetchPlain":true,"allowUnsigned":true`:                   "unsigned",
		`"fetchCA":"nonsense"`:                                     "fetchCA",
		`"networkRecovery":"https://x/m.json"`:                     "networkRecovery",
		`"fetchHosts":["x"],"networkRecovery":"http://x/m.json"`:   "networkRecovery",
		`"fetchHosts":["x"],"networkRecovery":"https://x/m.json"`:  "",
		`"fetchHosts":["x","*.y.z:1"],"fetchPins":["` + pin + `"]`: "",
	} {
		_, err := Parse([]byte(`{"version":1,"keys":["x"],` + in + `}`))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}
