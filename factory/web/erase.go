package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/notary"
	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/ledger"
	"gprovision/model/record"
	"gprovision/model/signature"
)

// erases shows what drives did, and the form for certificates.
func (s *Web) erases(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.showErases(w, r, who, http.StatusOK, "")
}

func (s *Web) showErases(w http.ResponseWriter, r *http.Request, who login.Who, status int, problem string) {
	v := view{Title: "Erases", Form: who.Form, Problem: problem}
	var err1, err2 error
	v.Drives, err1 = s.Store.DriveModels(r.Context())
	v.Keys, err2 = s.notary.Keys(r.Context())
	if err := errors.Join(err1, err2); err != nil {
		s.serverError(w, err)
		return
	}
	s.page(w, status, "erases.html", v)
}

// submitErase takes a certificate that an operator uploads.
func (s *Web) submitErase(w http.ResponseWriter, r *http.Request, who login.Who) {
	q := record.EraseSubmission{Accepted: r.PostFormValue("accepted") == "yes"}
	var errs [4]error
	q.Certificate, errs[0] = upload(r, "certificate", erasure.MaxCertificate)
	q.Signature, errs[1] = upload(r, "signature", signature.MaxSize)
	q.Proof, errs[2] = upload(r, "proof", ledger.MaxProof)
	if codes := r.PostFormValue("codes"); codes != "" {
		q.Certificate, q.Signature, errs[3] = erasure.ParseCodes(codes)
	}
	if err := errors.Join(errs[:]...); err != nil {
		s.showErases(w, r, who, http.StatusBadRequest, err.Error())
		return
	}
	e, err := s.notary.Submit(r.Context(), q, notary.Sender{Operator: who.Operator})
	for _, known := range []error{notary.ErrCertificate, store.ErrOtherErase, store.ErrNotEnrolled, store.ErrQuota, store.ErrDisk} {
		if errors.Is(err, known) {
			s.Log.Warn("certificate of an erase refused", "operator", who.Operator, "reason", err.Error())
			s.showErases(w, r, who, http.StatusConflict, err.Error())
			return
		}
	}
	if err != nil {
		s.serverError(w, err)
		return
	}
	s.Log.Info("erase", "unit", e.Unit, "run", e.Run, "outcome", e.Outcome, "ended", !e.Ended.IsZero(), "operator", who.Operator)
	s.Hub.Publish(e.Unit)
	http.Redirect(w, r, "/units/"+url.PathEscape(e.Unit), http.StatusSeeOther)
}

// upload returns a file of a form, empty if there is none.
func upload(r *http.Request, name string, most int64) ([]byte, error) {
	f, _, err := r.FormFile(name)
	if errors.Is(err, http.ErrMissingFile) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the file %s did not arrive", name)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("the file %s has more than %d bytes", name, most)
	}
	return b, err
}

// eraseFile sends one of the files of an erase, under the name that it has beside the others.
func (s *Web) eraseFile(w http.ResponseWriter, r *http.Request, _ login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	e, err := s.Store.Erase(r.Context(), r.PathValue("unit"), id)
	if err != nil {
		s.serverError(w, err)
		return
	}
	d := store.Document{Name: fmt.Sprintf("%s-%.8s.json", e.Unit, e.Run)}
	switch r.PathValue("file") {
	case "certificate":
		d.Body = e.Certificate
	case "signature":
		d.Name, d.Body = d.Name+signature.Suffix, e.Signature
	case "voucher":
		d.Name, d.Body = d.Name+erasure.VoucherSuffix, e.Voucher
	case "proof":
		d.Name, d.Body = d.Name+erasure.ProofSuffix, e.Proof
	default:
		s.serverError(w, store.ErrNotFound)
		return
	}
	api.ServeDocument(w, d)
}

// outcomeClass returns the style class of an outcome. Only what is proved is shown as good.
func outcomeClass(outcome string) string {
	switch erasure.Outcome(outcome) {
	case erasure.Proved:
		return "good"
	case erasure.Weaker:
		return "wait"
	}
	return "bad"
}

// seconds says how long a method took.
func seconds(m store.DriveModel) string {
	short, long := time.Duration(m.Shortest)*time.Second, time.Duration(m.Longest)*time.Second
	switch {
	case long == 0:
		return ""
	case short == long:
		return long.String()
	}
	return fmt.Sprintf("%s to %s", short, long)
}
