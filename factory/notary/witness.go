package notary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gprovision/model/ledger"
)

// Witness is somebody whom the server asks to cosign its log.
type Witness struct {
	Key *ledger.Witness
	// URL is what its requests begin with: the submission prefix of C2SP tlog-witness.
	URL string
}

// ParseWitnesses reads witnesses, one a line: key, blank, URL. A line that is empty or begins with # is passed over.
func ParseWitnesses(text string) ([]Witness, error) {
	var out []Witness
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 2 {
			return nil, fmt.Errorf("read witnesses: %.80q is not KEY URL", strings.TrimSpace(line))
		}
		key, err := ledger.ParseWitness(f[0])
		if err != nil {
			return nil, fmt.Errorf("read witnesses: %w", err)
		}
		u, err := url.Parse(f[1])
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("read witnesses: %.80q is no URL", f[1])
		}
		out = append(out, Witness{key, strings.TrimSuffix(f[1], "/")})
	}
	return out, nil
}

const (
	// patience is how long a request with a certificate waits for witnesses. What they say later is not heard.
	patience = 5 * time.Second
	// maxAnswer is the largest size of an answer of a witness in bytes.
	maxAnswer = 64 << 10
)

// cosign asks all witnesses to cosign the log as it is, and gives each certificate that fewer have cosigned a proof by that checkpoint. The
// error says which of them have not; what the others said is stored.
func (n *Notary) cosign(ctx context.Context) error {
	log, name, err := n.current(ctx)
	if err != nil {
		return err
	}
	checkpoint, err := log.Checkpoint()
	if err != nil {
		return err
	}
	lines, errs, keys := make([][]byte, len(n.witnesses)), make([]error, len(n.witnesses)), []*ledger.Witness{}
	asking, stop := context.WithTimeout(ctx, patience)
	defer stop()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i, w := range n.witnesses {
		keys = append(keys, w.Key)
		wg.Go(func() {
			if lines[i], errs[i] = w.ask(asking, client, log, checkpoint); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", w.Key.Name(), errs[i])
			}
		})
	}
	wg.Wait()
	checkpoint = slices.Concat(checkpoint, slices.Concat(lines...))
	said, err := ledger.Cosigners(keys, checkpoint)
	if err != nil {
		return err
	}
	erases, err := n.store.LessCosigned(ctx, name, len(said))
	if err != nil {
		return err
	}
	for _, e := range erases {
		p, err := log.Prove(e.Number, checkpoint)
		if errors.Is(err, ledger.ErrProof) { // it came after the checkpoint
			continue
		}
		if err == nil {
			err = n.store.SetProof(ctx, e.ID, p.Marshal(), len(said))
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// ask has a witness cosign a checkpoint of a log, and returns the lines of its signatures. It is asked from the empty log on, and says how
// much of the log it has seen then.
func (w Witness) ask(ctx context.Context, client *http.Client, log *ledger.Log, checkpoint []byte) ([]byte, error) {
	old := int64(0)
	for range 3 { // somebody else may ask at the same time
		g, err := log.ProveGrowth(old, checkpoint)
		if err != nil {
			return nil, err
		}
		status, answer, err := w.post(ctx, client, g.Marshal())
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			return w.Key.Lines(checkpoint, answer)
		case status != http.StatusConflict:
			return nil, fmt.Errorf("it answers %d", status)
		}
		size, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		if err != nil || size < 0 {
			return nil, errors.New("it has seen another content of this log")
		}
		old = size
	}
	return nil, errors.New("it does not say how much of the log it has seen")
}

// post sends an add-checkpoint request (C2SP tlog-witness).
func (w Witness) post(ctx context.Context, client *http.Client, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	return resp.StatusCode, answer, err
}
