package api

import (
	"errors"
	"net/http"
	"strconv"

	"gprovision/factory/limit"
	"gprovision/factory/login"
	"gprovision/factory/notary"
	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/ledger"
	"gprovision/model/record"
	"gprovision/model/signature"
)

// MaxErase is the size limit of a request with a certificate, in bytes.
const MaxErase = (erasure.MaxCertificate+signature.MaxSize+ledger.MaxProof)/3*4 + 8192

// routesOfErases are the requests about erases.
func (s *Server) routesOfErases() []Route {
	return []Route{
		{"POST", "/v1/erases", s.erasing},
		{"POST", "/v1/erases/before", s.unit(record.MaxDriveState+maxSmall, s.driveBefore)},
		{"POST", "/v1/erases/submit", s.operatorUpTo(MaxErase, s.submitErase)},
		{"GET", "/v1/erases/keys", s.noteKeys},
		{"GET", "/v1/erases/checkpoint", s.checkpoint},
		{"GET", "/v1/erases/drives", s.operator(s.driveModels)},
		{"GET", "/v1/units/{unit}/erases/{id}", s.operator(s.erase)},
	}
}

// erasing takes the certificate of an erase from its unit. The unit may send it again after its key was revoked for it, to get the same
// answer, so the key is not always the active one.
func (s *Server) erasing(w http.ResponseWriter, r *http.Request) {
	st, err := record.ParseStamp(r.Header.Get)
	if err != nil {
		s.refuse(w, http.StatusUnauthorized, record.ProblemSignature, err.Error())
		return
	}
	keys, err := s.Store.EraseKeys(r.Context(), st.Unit)
	if errors.Is(err, store.ErrNotFound) {
		s.refuse(w, http.StatusForbidden, record.ProblemNotEnrolled, "no key is enrolled for this unit")
		return
	}
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	e := keys[0] // unless another one has signed the request
	for _, k := range keys {
		if st.Verify(k.PublicKey, s.Audience, r.Method, r.URL.RequestURI(), s.Now()) == nil {
			e = k
			break
		}
	}
	body, leave, ok := s.readSigned(w, r, e.PublicKey, st, MaxErase)
	if !ok {
		return
	}
	defer leave()
	s.takeErase(w, r, body, notary.Sender{Key: e.PublicKey})
}

// submitErase takes the certificate of an erase from an operator.
func (s *Server) submitErase(w http.ResponseWriter, r *http.Request, who login.Who) {
	var q record.EraseSubmission
	if s.readInput(w, r, &q) {
		s.finishErase(w, r, q, notary.Sender{Operator: who.Operator})
	}
}

func (s *Server) takeErase(w http.ResponseWriter, r *http.Request, body []byte, from notary.Sender) {
	var q record.EraseSubmission
	if err := parse(body, &q); err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	s.finishErase(w, r, q, from)
}

// finishErase hands a certificate to the notary and answers the request.
func (s *Server) finishErase(w http.ResponseWriter, r *http.Request, q record.EraseSubmission, from notary.Sender) {
	e, err := s.notary.Submit(r.Context(), q, from)
	switch {
	case errors.Is(err, notary.ErrCertificate), errors.Is(err, store.ErrOtherErase):
		s.Log.Warn("certificate of an erase refused", "remote", limit.Remote(r.RemoteAddr), "operator", from.Operator, "reason", err.Error())
		s.refuse(w, http.StatusConflict, record.ProblemCertificate, err.Error())
		return
	case errors.Is(err, store.ErrNotEnrolled):
		s.refuse(w, http.StatusForbidden, record.ProblemNotEnrolled, err.Error())
		return
	}
	if s.noRoom(w, e.Unit, err) {
		return
	}
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	s.Log.Info("erase", "unit", e.Unit, "run", e.Run, "outcome", e.Outcome, "erased", e.Level, "recovery", e.Recovery, "log", e.Log,
		"number", e.Number, "ended", !e.Ended.IsZero(), "operator", from.Operator)
	s.Hub.Publish(e.Unit)
	s.answer(w, http.StatusOK, EraseReply(e))
}

// EraseReply returns what whoever brings a certificate gets for it.
func EraseReply(e store.Erase) record.EraseReply {
	return record.EraseReply{Unit: e.Unit, Run: e.Run, Voucher: e.Voucher, Proof: e.Proof, Ended: !e.Ended.IsZero()}
}

func (s *Server) driveBefore(w http.ResponseWriter, r *http.Request, e store.Enrolment, body []byte) {
	var q record.EraseBefore
	err := parse(body, &q)
	if err == nil {
		err = q.Validate()
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, err.Error())
		return
	}
	err = s.Store.AddDriveBefore(r.Context(), e.Unit, q)
	if s.noRoom(w, e.Unit, err) {
		return
	}
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	s.Log.Info("drive before erase", "unit", e.Unit, "run", q.Run, "drive", q.Name)
	s.Hub.Publish(e.Unit)
	s.answer(w, http.StatusOK, struct{}{})
}

func (s *Server) noteKeys(w http.ResponseWriter, r *http.Request) {
	keys, err := s.notary.Keys(r.Context())
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, keys)
	}
}

func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	old := int64(-1)
	if text := r.URL.Query().Get("old"); text != "" {
		var err error
		if old, err = strconv.ParseInt(text, 10, 64); err != nil || old < 0 {
			s.refuse(w, http.StatusBadRequest, record.ProblemSyntax, "old is no size of a log")
			return
		}
	}
	b, err := s.notary.Checkpoint(r.Context(), old)
	if errors.Is(err, ledger.ErrProof) {
		s.refuse(w, http.StatusNotFound, record.ProblemNotFound, "the log is not that large")
		return
	}
	if s.succeeded(w, r, err) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Write(b)
	}
}

func (s *Server) driveModels(w http.ResponseWriter, r *http.Request, _ login.Who) {
	list, err := s.Store.DriveModels(r.Context())
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, struct {
			Drives []store.DriveModel `json:"drives"`
		}{list})
	}
}

// EraseFiles is an erase with its files.
type EraseFiles struct {
	store.Erase
	Certificate []byte `json:"certificate"`
	Signature   []byte `json:"signature"`
	Voucher     []byte `json:"voucher"`
	Proof       []byte `json:"proof"`
}

func (s *Server) erase(w http.ResponseWriter, r *http.Request, _ login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	e, err := s.Store.Erase(r.Context(), r.PathValue("unit"), id)
	if s.succeeded(w, r, err) {
		s.answer(w, http.StatusOK, EraseFiles{e, e.Certificate, e.Signature, e.Voucher, e.Proof})
	}
}
