{{- /* What every pod of the chart shares: Pod Security "restricted", and no API credentials unless it says so. */}}
{{- define "dreambooth.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurity.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with .Values.podSecurity.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  {{- with .Values.podSecurity.fsGroup }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "dreambooth.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- /* Where a part's pods may run: its own values. */}}
{{- define "dreambooth.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* A part's volume `data`: a claim when its persistence is on, else an emptyDir: (list $ "minio"). */}}
{{- define "dreambooth.dataVolume" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
- name: data
  {{- if $part.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ $part.persistence.existingClaim | default (include "dreambooth.name" .) }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}

{{- /* The claim of a part, where it is persistent and brings none of its own: (list $ "minio"). */}}
{{- define "dreambooth.claim" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
{{- if and $part.enabled $part.persistence.enabled (not $part.persistence.existingClaim) }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "dreambooth.name" . }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels: {{- include "dreambooth.labels" . | nindent 4 }}
  annotations:
    # Data outlives the release: delete the claim by hand when it is not wanted any more.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with $part.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $part.persistence.size }}
{{- end }}
{{- end -}}

{{- /* The Service of a part: (list $ "minio" (dict "http" 9000)). */}}
{{- define "dreambooth.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "dreambooth.name" . }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels: {{- include "dreambooth.labels" . | nindent 4 }}
spec:
  selector: {{- include "dreambooth.selector" . | nindent 4 }}
  ports:
    {{- range $name, $port := index . 2 }}
    - name: {{ $name }}
      port: {{ $port }}
      targetPort: {{ $name }}
    {{- end }}
{{- end -}}
