package report

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/unit/state"
)

// TestAnswers: each answer of the server leads to the code in docs/errors.md that a person reads. The error, which
// goes to the log, has the server's own sentence and code.
func TestAnswers(t *testing.T) {
	enrol := func(c *Client) error { _, err := c.Hello(t.Context(), record.EnrolRequest{}); return err }
	permit := func(c *Client) error { return c.Permit(t.Context(), record.JobProvision) }
	credentials := func(c *Client) error { _, err := c.Credentials(t.Context()); return err }
	for name, tc := range map[string]struct {
		ask    func(*Client) error
		status int
		code   string
		want   *fault.Fault
	}{
		"trouble of its own":                      {permit, 500, record.ProblemInternal, fault.NoServer},
		"busy":                                    {permit, 429, record.ProblemBusy, fault.NoServer},
		"no room":                                 {credentials, 507, record.ProblemFull, fault.NoServer},
		"restored without this unit":              {permit, 403, record.ProblemNotEnrolled, fault.ServerRefused},
		"another key speaks for the unit":         {permit, 401, record.ProblemSignature, fault.ServerRefused},
		"the unit is much older":                  {permit, 403, record.ProblemOldScheme, fault.ServerRefused},
		"the server is much older":                {permit, 404, record.ProblemNotFound, fault.ServerRefused},
		"credentials, by another key":             {credentials, 401, record.ProblemSignature, fault.ServerRefused},
		"rejected":                                {enrol, 403, record.ProblemRejected, fault.EnrolRefused},
		"complete, with another key":              {enrol, 403, record.ProblemCompleted, fault.EnrolRefused},
		"no operator key":                         {credentials, 409, record.ProblemNoOperator, fault.NoCredentials},
		"no operator key, before the erase":       {permit, 409, record.ProblemNoOperator, fault.NoCredentials},
		"confirmed before":                        {credentials, 403, record.ProblemConfirmed, fault.NoCredentials},
		"a clock that the server's does not cure": {permit, 401, record.ProblemClock, fault.ServerRefused},
		"enrolment, and the server has trouble":   {enrol, 503, record.ProblemBusy, fault.NoServer},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == pathTime {
					fmt.Fprintf(w, `{"time":%q}`, time.Now().UTC().Format(time.RFC3339))
					return
				}
				asked++
				w.WriteHeader(tc.status)
				fmt.Fprintf(w, `{"code":%q,"error":"a sentence"}`, tc.code)
			}))
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(server.Certificate())
			c, err := New(Config{Endpoint: server.URL, CA: pool, Unit: "S1", Key: state.NewKey(), Boot: "b1", Patience: time.Nanosecond})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = tc.ask(c)
			if fault.Of(err) != tc.want || !strings.Contains(err.Error(), "a sentence ("+tc.code) {
				t.Errorf("got %v, want %s with sentence and code of the server", err, tc.want.Code)
			}
			if again := asked > 1; again != (tc.code == record.ProblemClock) {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}
